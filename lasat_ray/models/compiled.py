"""Nets through ``torch.compile``, as the settings ask."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lasat_ray.config import SpeedConfig
from lasat_ray.models.private import mark_batch_dynamic


def compiled(net: nn.Module, speed: SpeedConfig) -> Callable[[Tensor], Tensor]:
    """``net`` itself, or the same function compiled; the weights stay those of ``net``.

    One compilation serves every batch size (it is a symbol there), so that images which leave the
    batch cause none. ``cudagraphs`` also records one CUDA graph for each size that occurs:
    ``speed.bucket`` keeps these few.
    """
    if speed.compile in ("none", "graph"):  # graphs are of attack steps, not of passes
        return net
    if speed.compile == "cudagraphs":
        fast = torch.compile(net, mode="reduce-overhead")
    else:
        fast = torch.compile(net, backend=speed.compile)

    def run(x: Tensor) -> Tensor:
        mark_batch_dynamic(x)
        return fast(x)

    return run


def begin_step(speed: SpeedConfig) -> None:
    """Tell CUDA graphs that results of earlier passes are no longer needed."""
    if speed.compile == "cudagraphs":
        torch.compiler.cudagraph_mark_step_begin()
