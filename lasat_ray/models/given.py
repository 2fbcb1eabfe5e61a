"""Nets that a program gave as objects, not by a name that another process could import.

They stand in a config as ``given:NAME`` and are found in this process, or in a worker that was sent them. The
name of a module ends in a hash of its layers: the same net has the same name in every process.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import nn

from lasat_ray.errors import UsageError
from lasat_ray.models.backbone import Builder, ImageShape
from lasat_ray.models.outside import outside_builder_of

PREFIX = "given"
WANTED = ("num_classes", "image_shape")
"""What a factory may ask for by keyword: the number of classes, and (C,H,W)."""

_NETS: dict[str, Callable[..., Any]] = {}


def spell(net: object) -> str:
    """The name under which a config holds a module or a factory of modules; it is registered here unless
    every process can import it. UsageError for anything else."""
    if isinstance(net, str):
        return net
    if isinstance(net, nn.Module):
        digest = hashlib.sha256(repr(net).encode()).hexdigest()[:8]
        name = f"{PREFIX}:{type(net).__name__}-{digest}"
        register({name: Instance(net)})
        return name
    if not callable(net):
        raise UsageError(
            f"net: {type(net).__name__} is no net; give a name, a torch.nn.Module or what makes one"
        )
    if importable := _import_path(net):
        return importable
    label = getattr(net, "__qualname__", type(net).__name__)
    name = f"{PREFIX}:{re.sub(r'[^A-Za-z0-9_.]+', '_', label)}"
    register({name: net})
    return name


class Instance:
    """A factory that copies one module, weights included."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self) -> nn.Module:
        """A copy on the CPU. Layers that its maker froze stay so; a net that is frozen or in evaluation mode
        as a whole, as a loaded one is, can be trained again."""
        net = copy.deepcopy(self.net).cpu()
        if not any(parameter.requires_grad for parameter in net.parameters()):
            net.requires_grad_(True)
        return net if net.training else net.train()


def register(nets: Mapping[str, Callable[..., Any]]) -> None:
    """Make nets known in this process, by the names that ``spell`` gave them."""
    _NETS.update(nets)


def given_among(names: Collection[str | None]) -> dict[str, Callable[..., Any]]:
    """The given nets among some spellings, to be sent to another process."""
    return {name: _NETS[name] for name in names if name is not None and name in _NETS}


def given_builder(name: str, *, field: str) -> Builder:
    """What builds the net behind ``given:NAME``; UsageError where this process was not given it."""
    if name not in _NETS:
        raise UsageError(
            f"{field}: '{name}' was given as an object from Python and is not in this process; give the same "
            "net again: lasat_ray.load_model(RUN, net=...), lasat_ray.train(resume=RUN, net=...)"
        )

    def make(*, num_classes: int, image_shape: ImageShape) -> nn.Module:
        return call_factory(_NETS[name], num_classes, image_shape)

    return outside_builder_of(make, name, field=field)


def call_factory(factory: Callable[..., Any], num_classes: int, image_shape: ImageShape) -> Any:
    """Its net; those of ``WANTED`` are handed over that the factory takes by keyword."""
    values = {"num_classes": num_classes, "image_shape": image_shape}
    return factory(**{name: values[name] for name in _taken(factory)})


def _taken(factory: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return WANTED
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return WANTED
    return tuple(name for name in WANTED if name in parameters)


def _import_path(factory: Callable[..., Any]) -> str | None:
    """``module:function`` where that finds this very object in any process, and calls it rightly."""
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    if module in (None, "__main__") or not name.isidentifier() or _taken(factory) != WANTED:
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception:
        return None
    return f"{module}:{name}" if found is factory else None
