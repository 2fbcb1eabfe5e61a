"""Layers of a net by patterns of their names: what stays as it is, and what learns faster or slower."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from lasat_ray.config.units import parse_lr_factor
from lasat_ray.errors import UsageError
from lasat_ray.models.classifier import Classifier
from lasat_ray.models.modes import NORMS


def matching(net: Classifier, pattern: str, *, option: str) -> dict[str, nn.Parameter]:
    """The parameters whose name in the backbone fits ``pattern``, or lies below a layer that does.

    ``*`` stands for any characters: ``layer1`` and ``layer1.*`` are the same, ``*.bias`` are all biases.
    UsageError in ``option``'s name where none does, with the names of the net's layers.
    """
    named = dict(net.backbone.named_parameters())
    found = {
        name: parameter
        for name, parameter in named.items()
        if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
    }
    if not found:
        layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in named))
        shown = ", ".join(layers[:12]) + (", ..." if len(layers) > 12 else "")
        raise UsageError(f"{option}: '{pattern}' fits no weight of the net; its layers are {shown}")
    return found


def freeze(net: Classifier, patterns: Sequence[str], *, option: str) -> None:
    """Hold fast the parameters that fit.

    Normalization layers none of whose parameters learn any more stay in evaluation mode, so that their
    statistics do not move either. UsageError where nothing is left to learn.
    """
    for pattern in patterns:
        for parameter in matching(net, pattern, option=option).values():
            parameter.requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in net.parameters()):
        shown = " ".join(patterns)
        raise UsageError(f"{option}: {shown} leaves nothing to train; let at least the last layer learn")
    if patterns:
        net.hold_in_eval([name for name, part in net.backbone.named_modules() if _is_frozen_norm(part)])


def _is_frozen_norm(part: nn.Module) -> bool:
    own = list(part.parameters(recurse=False))
    return isinstance(part, NORMS) and bool(own) and not any(parameter.requires_grad for parameter in own)


def lr_factors(net: Classifier, rules: Sequence[str], *, option: str) -> dict[int, float]:
    """``id`` of a parameter -> its multiple of the learning rate, for parameters that a rule
    ``PATTERN=FACTOR`` fits; of several rules the last one holds."""
    factors: dict[int, float] = {}
    for rule in rules:
        pattern, factor = parse_lr_factor(rule)
        found = matching(net, pattern, option=option)
        factors |= {id(parameter): factor for parameter in found.values()}
    return factors
