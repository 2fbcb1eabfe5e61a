"""BatchNorm in a strategy net: always the running statistics, followed over the global batch.

A policy gradient needs the very distribution that an action was drawn from. Batch statistics would
make that distribution depend on the other images and on how they are shared among workers, so the
net acts and is differentiated in eval mode, and an own forward pass moves the statistics.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lasat_ray.world import World


@torch.no_grad()
def follow_statistics(
    net: nn.Module, x: Tensor, global_size: int, world: World, *, first: bool = False
) -> Any:
    """Forward pass in eval mode in which every BatchNorm layer first takes in the moments of what it
    sees over the global batch; returns the net's answer with the new statistics.

    ``first`` takes the moments over as they are: statistics of an untrained net mean nothing.
    A layer at a time is one small message between workers; nets without BatchNorm send none.
    """
    net.eval()
    layers = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    take = partial(_take_in, share=len(x) / global_size, world=world, first=first)
    handles = [layer.register_forward_pre_hook(take) for layer in layers]
    try:
        return net(x)
    finally:
        for handle in handles:
            handle.remove()


def _take_in(layer: _BatchNorm, inputs: tuple[Tensor], *, share: float, world: World, first: bool) -> None:
    """running <- (1 - momentum) running + momentum (mean, unbiased variance), as train mode does."""
    mean, var, count = layer.running_mean, layer.running_var, layer.num_batches_tracked
    assert mean is not None and var is not None and count is not None
    (seen,) = inputs
    dims = [d for d in range(seen.ndim) if d != 1]
    # Deviations from the running mean keep a one-pass variance exact enough in single precision.
    shifted = seen.to(mean.dtype) - mean.view([-1 if d == 1 else 1 for d in range(seen.ndim)])
    sums = torch.stack([part.sum(dims, dtype=torch.float64) for part in (shifted, shifted**2)])
    n = round(seen.numel() / seen.shape[1] / share)
    shift, square = (world.sum(sums) / n).unbind()
    unbiased = (square - shift**2).clamp(min=0) * (n / max(n - 1, 1))
    count += 1
    momentum = 1.0 if first else layer.momentum
    weight = 1 / count if momentum is None else mean.new_tensor(momentum)
    new_mean = mean + shift.to(mean.dtype)
    mean.lerp_(new_mean, weight.to(mean.dtype))
    var.lerp_(unbiased.to(var.dtype), weight.to(var.dtype))
