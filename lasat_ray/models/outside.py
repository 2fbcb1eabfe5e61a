"""Nets from elsewhere: a user's ``module:function``, and the trial of every net that is not ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lasat_ray.errors import UsageError, UserError
from lasat_ray.models.backbone import Builder, ImageShape
from lasat_ray.plugins import Plugin, blaming, search_present_folder, shown


def outside_builder(name: str, *, field: str) -> Builder:
    """The function behind ``module:function``; UserError if it is missing, raises, or gives no net."""
    module_name, _, function_name = name.partition(":")
    search_present_folder()
    told = f"{field}: importing '{module_name}' of '{name}' raised"
    with blaming(lambda raised: UserError(f"{told} {raised}; mend it")):
        try:
            function = getattr(import_module(module_name), function_name, None)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"{field}: cannot import '{module_name}' of '{name}' (no module named '{error.name}'); "
                "check the spelling, or add its folder to PYTHONPATH"
            ) from error
    if not callable(function):
        raise UsageError(
            f"{field}: module '{module_name}' has no function '{function_name}'; "
            "define it as function(*, num_classes, image_shape) -> nn.Module"
        )

    return outside_builder_of(function, name, field=field)


def outside_builder_of(function: Callable[..., Any], name: str, *, field: str) -> Builder:
    """Somebody's function as a builder; UserError if it raises, UsageError if it gives no net."""

    def build(*, num_classes: int, image_shape: ImageShape) -> nn.Module:
        told = f"{field}: '{name}' called with num_classes={num_classes}, image_shape={image_shape} raised"
        with blaming(lambda raised: UserError(f"{told} {raised}; correct the function")):
            net = function(num_classes=num_classes, image_shape=image_shape)
        if not isinstance(net, nn.Module):
            raise UsageError(f"{field}: '{name}' returned a {type(net).__name__}; return an nn.Module")
        return net

    return build


def check_output(net: nn.Module, num_outputs: int, image_shape: ImageShape, plugin: Plugin) -> None:
    """UserError unless ``net`` maps a zero batch of two images to [2,num_outputs] in either mode.

    Layers that find their sizes at the first images (LazyLinear) find them here. Apart from that a copy is
    tried, and the random state put back: the check must leave no trace in BatchNorm statistics or in what
    the caller draws next.
    """
    lazy = any(is_lazy(parameter) for parameter in net.parameters())
    images = torch.zeros(2, *image_shape, device=None if lazy else device_of(net))
    told = f"fails on two images of shape {image_shape}:"
    remedy = f"choose a net that takes this size and returns logits (2, {num_outputs})"
    for training in (True, False):
        with blaming(lambda raised: plugin.fault(f"{told} {raised}", remedy)):
            if lazy:
                net.eval()(images)
                lazy = False
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                output = copy.deepcopy(net).train(training)(images)
        if not isinstance(output, Tensor) or tuple(output.shape) != (2, num_outputs):
            shape = tuple(output.shape) if isinstance(output, Tensor) else shown(output)
            maps = f"maps a batch of two images to shape {shape}"
            raise plugin.fault(maps, f"it has to return logits (2, {num_outputs})")
    net.train()


def check_trainable(net: nn.Module, image_shape: ImageShape, share: int, plugin: Plugin) -> None:
    """UserError unless ``net`` stands what training does with it: the smallest ``share`` of a worker in train
    mode and its gradient, its own weights saved and put back, an image alone as in a batch.

    Copies are tried, and the random state is put back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.rand(4, *image_shape, device=device_of(net))
        _one_update(copied(net, plugin).train(), images[: min(share, 2)], share, plugin)
        _own_weights(copied(net, plugin), plugin)
        with torch.no_grad():
            _alone_as_in_a_batch(copied(net, plugin).eval(), images, plugin)


def _one_update(net: nn.Module, x: Tensor, share: int, plugin: Plugin) -> None:
    remedy = "give each worker 2 images or more (--batch-size, --num-workers)" if share == 1 else ""
    try:
        with plugin.call(f"trained on {len(x)} image{'s' * (len(x) > 1)}"):
            logits = net(x)
    except UserError as error:
        if not remedy:
            raise
        told = str(error).removeprefix(f"{plugin.option}: '{plugin.name}' ").rpartition(";")[0]
        raise plugin.fault(f"cannot be trained on shares of one image: it {told}", remedy) from error
    weights = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not weights:
        raise plugin.fault("has no weights that training could change", "leave some requires_grad")
    if not logits.requires_grad:
        raise plugin.fault("returned logits without a graph", "compute them without detach or no_grad")
    with plugin.call("differentiated in train mode"):
        found = torch.autograd.grad(logits.logsumexp(1).sum(), weights, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise plugin.fault("returned logits that hang on none of its weights", "use them in forward")


def _own_weights(net: nn.Module, plugin: Plugin) -> None:
    with plugin.call("asked for its weights"):
        state = net.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            told = f"has {shown(value)} in its state dict under '{name}'"
            raise plugin.fault(told, "keep tensors alone there: checkpoints hold no objects")
    with plugin.call("given its own weights back"):
        net.load_state_dict(state)


def _alone_as_in_a_batch(net: nn.Module, x: Tensor, plugin: Plugin) -> None:
    batch, again = net(x), net(x)
    size = batch.abs().max() + 1e-30
    if not (again - batch).abs().max() <= 1e-4 * size:
        return  # random in evaluation mode: that is for the sanity check of an evaluation to tell
    remedy = "leave track_running_stats on, or use GroupNorm"
    try:
        alone = net(x[:1])
    except UserError as error:
        raise plugin.fault("cannot take one image alone in evaluation mode", remedy) from error
    off = float((alone - batch[:1]).abs().max() / size)
    if off > 1e-2:
        told = f"by {100 * off:.2g} % of their size"
        raise plugin.fault(
            f"gives an image other logits in a batch than alone ({told}) in evaluation mode", remedy
        )


def device_of(net: nn.Module) -> torch.device | None:
    """Where the first of its weights lies; None where it has none."""
    return next((tensor.device for tensor in net.parameters()), None)


def copied(net: nn.Module, plugin: Plugin) -> nn.Module:
    """A copy with weights of its own, as rewards and weight averages make them."""
    with plugin.call("copied"):
        return copy.deepcopy(net)
