"""Anybody's actions on the environment, looked at before they are taken for places in the grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lasat_ray.errors import UsageError
from lasat_ray.strategy import StrategySpace
from lasat_ray.types import Batch


def checked_actions(actions: Any, batch: Batch, space: StrategySpace) -> Tensor:
    """``actions`` of any array type as int64 [B,K], each the place of one of its field's values.

    UsageError naming field, value and range; unchecked, a negative place would count from a field's end.
    """
    try:
        found = torch.as_tensor(actions, device=batch.x.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"action: is no array of numbers ({error}); give whole numbers") from error
    wanted = (len(batch.x), len(space.sizes))
    if tuple(found.shape) != wanted:
        what = "give a row an image and a column a field"
        raise UsageError(f"action: has shape {tuple(found.shape)}, not {wanted}; {what}")
    broken = found.is_floating_point() and bool((found % 1 != 0).any())
    if found.is_complex() or found.dtype == torch.bool or broken:
        raise UsageError(f"action: {found.dtype} that are no whole numbers; give int64")
    index = found.long()
    bad = (index < 0) | (index >= torch.tensor(space.sizes, device=index.device))
    if bad.any():
        row, k = (int(place) for place in bad.nonzero()[0])
        told = f"{int(index[row, k])} of image {row} is outside 0..{space.sizes[k] - 1}"
        raise UsageError(f"action: {space.names[k]}: {told}; give the place of one of its values")
    return index
