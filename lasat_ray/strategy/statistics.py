"""BatchNorm in a strategy net: always the running statistics, followed over the global batch.

A policy gradient needs the very distribution that an action was drawn from. Batch statistics would
make that distribution depend on the other images and on how they are shared among workers, so the
net acts and is differentiated in eval mode. What its layers see while it does moves the statistics
afterwards, without a forward pass of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.process_group import ProcessGroup

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True, slots=True)
class Moments:
    """What one layer saw in one pass: ``sums`` [2,C] in float64, of deviations from ``about`` [C] and of
    their squares, over ``count`` numbers a channel."""

    layer: Any
    about: Tensor
    sums: Tensor
    count: int


@contextmanager
def observed(net: nn.Module) -> Iterator[list[Moments]]:
    """Collects what every BatchNorm layer sees in the passes of the block, which it leaves as they are."""
    seen: list[Moments] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append(_moments(layer, inputs[0])))
        for layer in _layers(net)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def follow(moments: list[Moments], share: float, group: ProcessGroup) -> None:
    """Move the statistics by what was observed on all workers, in one message between them.

    ``share``: the part of the global batch that this worker saw.
    """
    group.sum_in_place([seen.sums for seen in moments])
    for seen in moments:
        _take_in(seen, share)


@torch.no_grad()
def initialise_statistics(net: nn.Module, x: Tensor, share: float, group: ProcessGroup) -> None:
    """Take over the moments of images x [B,C,H,W] as they are: statistics of an untrained net mean
    nothing. A layer after the other, since each sees through those before it."""

    def take_over(layer: Any, inputs: tuple[Tensor]) -> None:
        seen = _moments(layer, inputs[0])
        group.sum_in_place([seen.sums])
        _take_in(seen, share, momentum=1.0)

    net.eval()
    hooks = [layer.register_forward_pre_hook(take_over) for layer in _layers(net)]
    try:
        net(x)
    finally:
        for hook in hooks:
            hook.remove()


def _layers(net: nn.Module) -> list[Any]:
    return [m for m in net.modules() if isinstance(m, BATCH_NORMS) and m.running_mean is not None]


@torch.no_grad()
def _moments(layer: Any, seen: Tensor) -> Moments:
    assert layer.running_mean is not None
    about = layer.running_mean.clone()
    each = seen.flatten(2) if seen.ndim > 2 else seen[..., None]  # [B,C,pixels]
    # Deviations from the running mean keep a one-pass variance exact enough in single precision. Sums of an
    # image's pixels stay in it too, fifteen times as fast; those over images, whose order depends on the
    # workers, are in float64.
    shifted = each.to(about.dtype) - about[:, None]
    shift = shifted.sum(2).sum(0, dtype=torch.float64)
    square = shifted.square_().sum(2).sum(0, dtype=torch.float64)
    return Moments(layer, about, torch.stack([shift, square]), seen.numel() // seen.shape[1])


@torch.no_grad()
def _take_in(seen: Moments, share: float, momentum: float | None = None) -> None:
    """running <- (1 - momentum) running + momentum (mean, unbiased variance), as train mode does;
    the layer's own momentum, if none is given."""
    layer = seen.layer
    mean, var, count = layer.running_mean, layer.running_var, layer.num_batches_tracked
    assert mean is not None and var is not None and count is not None
    n = round(seen.count / share)
    shift, square = (seen.sums / n).unbind()
    unbiased = (square - shift**2).clamp(min=0) * (n / max(n - 1, 1))
    count += 1
    momentum = layer.momentum if momentum is None else momentum
    if momentum is None:
        weight: Tensor | float = (1 / count).to(mean.dtype)
    else:  # rounded as a tensor of that dtype would be, but a number: nothing crosses to the device
        weight = torch.tensor(momentum, dtype=mean.dtype).item()
    mean.lerp_(seen.about + shift.to(mean.dtype), weight)
    var.lerp_(unbiased.to(var.dtype), weight)
