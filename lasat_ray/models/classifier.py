"""The net as everyone else sees it: pixels in [0,1] to logits, normalization and precision inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.errors import UsageError, unknown_name
from lasat_ray.plugins import Plugin, shown

_full_precision = ContextVar("full_precision", default=False)


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside the block bf16 nets pass without autocast, in the float32 of their weights: forward-mode
    derivatives do not go through its casts."""
    token = _full_precision.set(True)
    try:
        yield
    finally:
        _full_precision.reset(token)


LEAST_CHANNELS = 8
"""Training narrower convolutions channels last ends in corrupted memory on a CPU (torch 2.15)."""
PRECISIONS = ("fp32", "bf16", "fp64")


class Classifier(nn.Module):
    """``backbone`` behind a per-channel normalization, in one of ``PRECISIONS``.

    Gradients and budgets stay in [0,1] pixels because ``mean`` and ``std`` (persistent buffers
    [C,1,1]) are applied here. The published LAS-AT settings use 0 and 1. With bf16 weights and
    logits stay float32 and only the backbone's operations run in bfloat16 (autocast); with fp64
    weights and logits are float64. With ``channels_last`` weights and images lie as [B,H,W,C] in memory,
    unless a layer is narrower than ``LEAST_CHANNELS``. UsageError for another precision.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, *, precision: str, mean: Tensor, std: Tensor, channels_last: bool = False
    ) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, PRECISIONS)
        self.backbone = backbone
        self.classes: tuple[str, ...] = ()
        """Names of the logits, where the net was read from a file that knows them."""
        self.card: dict[str, Any] = {}
        """What that file says of the net: image_shape (C,H,W), budget, accuracies, ..."""
        self._held_in_eval = _in_eval_mode(backbone)
        self.precision = precision
        self._plugin: Plugin | None = None
        self._num_outputs = 0
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.channels_last = channels_last and _is_wide(backbone)
        if precision == "fp64":
            self.double()
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> Classifier:
        """As every module's; layers that the maker of the net put in evaluation mode, such as a frozen
        BatchNorm, stay there."""
        super().train(mode)
        for name in self._held_in_eval:
            self.backbone.get_submodule(name).training = False
        return self

    def hold_in_eval(self, names: Sequence[str]) -> None:
        """Parts of the backbone, by name, that stay in evaluation mode from now on."""
        self._held_in_eval = list(dict.fromkeys([*self._held_in_eval, *names]))
        self.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """x [B,C,H,W] in [0,1] -> logits [B,N], float32 (fp64: float64)."""
        # A cast that the input gradient passes through: x may come in the caller's own dtype.
        x = (x.to(self.mean.dtype) - self.mean) / self.std
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        bf16 = self.precision == "bf16" and not _full_precision.get()
        with torch.autocast(x.device.type, torch.bfloat16) if bf16 else nullcontext():
            logits = self._outside(x) if self._plugin else self.backbone(x)
        return logits.to(self.mean.dtype)

    def hold_to(self, plugin: Plugin, num_outputs: int) -> None:
        """From now on the backbone is somebody's code: UserError naming it for every pass in which it raises
        or returns anything but ``num_outputs`` logits an image."""
        self._plugin, self._num_outputs = plugin, num_outputs

    def _outside(self, x: Tensor) -> Tensor:
        """The pass through somebody's net; compilers and exporters, which trace it, see the bare net."""
        if torch.compiler.is_compiling():
            return self.backbone(x)
        plugin, wanted = self._plugin, (len(x), self._num_outputs)
        assert plugin is not None
        with plugin.call(f"given images {tuple(x.shape)}"):
            logits = self.backbone(x)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            told = f"returned {shown(logits)} for images {tuple(x.shape)}"
            raise plugin.fault(told, f"return logits {wanted}")
        if not logits.is_floating_point():
            raise plugin.fault(f"returned {shown(logits)}", "return floating-point logits")
        return logits


def _in_eval_mode(net: nn.Module) -> list[str]:
    """The parts of a net in training mode that are not; none of one that is in evaluation mode as a whole,
    as loaded ones often are."""
    return [name for name, part in net.named_modules() if net.training and not part.training]


def _is_wide(net: nn.Module) -> bool:
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    return all(conv.out_channels // conv.groups >= LEAST_CHANNELS for conv in convs)


def channel_values(name: str, value: float | Sequence[float], channels: int) -> Tensor:
    """A number per channel, or one for all, as float32 [C,1,1]; UsageError if their count is wrong."""
    numbers = [float(value)] if isinstance(value, (int, float)) else [float(v) for v in value]
    numbers = numbers * channels if len(numbers) == 1 else numbers
    if len(numbers) != channels:
        raise UsageError(f"{name}: {len(numbers)} values for {channels} image channels; give 1 or {channels}")
    if name == "std" and min(numbers) <= 0:
        raise UsageError(f"std: {min(numbers):g} divides the pixels; give values above 0")
    return torch.tensor(numbers).reshape(-1, 1, 1)
