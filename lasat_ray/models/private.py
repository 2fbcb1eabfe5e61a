"""Everything of PyTorch's that is not public, each with a public way for the day it is gone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

try:
    # The parent of all BatchNorm and InstanceNorm classes, a user's own included.
    from torch.nn.modules.batchnorm import _NormBase

    RUNNING_NORMS: tuple[Any, ...] = (_NormBase,)
except ImportError:
    RUNNING_NORMS = (
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
        *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    )


def copy_all(to: list[Tensor], source: list[Tensor]) -> None:
    """Copy tensor after tensor (any shapes), on a GPU in one kernel."""
    if hasattr(torch, "_foreach_copy_"):
        torch._foreach_copy_(to, source)
        return
    for mine, theirs in zip(to, source, strict=True):
        mine.copy_(theirs)


def lerp_all(to: list[Tensor], source: list[Tensor], weight: float) -> None:
    """Move tensor after tensor (any shapes) by ``weight`` of the way to its source."""
    if hasattr(torch, "_foreach_lerp_"):
        torch._foreach_lerp_(to, source, weight)
        return
    for mine, theirs in zip(to, source, strict=True):
        mine.lerp_(theirs, weight)


def mark_batch_dynamic(x: Tensor) -> None:
    """Tell the compiler that x [B,...] comes in many sizes; unmarked, it finds out at the second one."""
    if hasattr(torch, "_dynamo") and hasattr(torch._dynamo, "maybe_mark_dynamic"):
        torch._dynamo.maybe_mark_dynamic(x, 0)
