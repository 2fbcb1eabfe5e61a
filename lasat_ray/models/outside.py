"""Nets from elsewhere: ``torchvision:NAME`` and a user's ``module:function``."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.errors import UsageError, UserError
from lasat_ray.models.backbone import Builder, ImageShape
from lasat_ray.plugins import search_present_folder


class RepeatGrey(nn.Module):
    """Gives ``net`` each grey image [B,1,H,W] as three equal channels."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.expand(-1, 3, -1, -1))


def torchvision_builder(name: str, *, field: str) -> Builder:
    """Untrained torchvision classifier ``name``; UsageError if there is none or C is not 1 or 3."""
    from torchvision import models  # slow to import and rarely wanted

    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=4) or ["resnet18", "mobilenet_v3_small", "vgg11_bn"]
        raise UsageError(f"{field}: torchvision has no classifier '{name}'; try one of: {', '.join(close)}")
    # The auxiliary heads of these two make the output a tuple while training.
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}

    def build(*, num_classes: int, image_shape: ImageShape) -> nn.Module:
        channels = image_shape[0]
        if channels not in (1, 3):
            raise UsageError(
                f"{field}: 'torchvision:{name}' takes 3 channels and the images have {channels}; "
                "use a built-in net or module:function"
            )
        net = models.get_model(name, weights=None, num_classes=num_classes, **options)
        return RepeatGrey(net) if channels == 1 else net

    return build


def outside_builder(name: str, *, field: str) -> Builder:
    """The function behind ``module:function``; UserError if it is missing, raises, or gives no net."""
    module_name, _, function_name = name.partition(":")
    search_present_folder()
    try:
        function = getattr(import_module(module_name), function_name, None)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{field}: cannot import '{module_name}' of '{name}' (no module named '{error.name}'); "
            "check the spelling, or add its folder to PYTHONPATH"
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(
            f"{field}: importing '{module_name}' of '{name}' raised {one_line(error)}; mend it"
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
        try:
            net = function(num_classes=num_classes, image_shape=image_shape)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            call = f"num_classes={num_classes}, image_shape={image_shape}"
            raise UserError(
                f"{field}: '{name}' called with {call} raised {one_line(error)}; correct the function"
            ) from error
        if not isinstance(net, nn.Module):
            raise UsageError(f"{field}: '{name}' returned a {type(net).__name__}; return an nn.Module")
        return net

    return build


def check_output(net: nn.Module, num_outputs: int, image_shape: ImageShape, *, name: str, field: str) -> None:
    """UserError unless ``net`` maps a zero batch of two images to [2,num_outputs] in either mode.

    A copy is tried, and the random state put back: the check must leave no trace in BatchNorm
    statistics or in what the caller draws next.
    """
    device = next((tensor.device for tensor in net.parameters()), None)
    for training in (True, False):
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                trial = copy.deepcopy(net).train(training)
                output = trial(torch.zeros(2, *image_shape, device=device))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise UserError(
                f"{field}: '{name}' fails on two images of shape {image_shape}: {one_line(error)}; "
                f"choose a net that takes this size and returns logits (2, {num_outputs})"
            ) from error
        if tuple(output.shape) != (2, num_outputs):
            raise UserError(
                f"{field}: '{name}' maps a batch of two images to shape {tuple(output.shape)}; "
                f"it has to return logits (2, {num_outputs})"
            )


def one_line(error: BaseException) -> str:
    """Type and message of an exception without line breaks, cut at 200 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
