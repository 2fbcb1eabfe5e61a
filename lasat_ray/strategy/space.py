"""The strategy space: which values each field may take, and actions decoded into strategies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lasat_ray.config.units import Grid
from lasat_ray.types import Strategy

WHOLE_FIELDS = ("num_steps", "attack_loss", "direction", "restarts")
"""Fields that count or name something."""


@dataclass(frozen=True, slots=True)
class StrategySpace:
    """A grid: one categorical head per field, in the order of the mapping.

    ``names`` the K fields; ``values`` one [V_k] tensor each, on the training device; ``common_steps``
    the only number of steps, where there is but one.
    """

    names: tuple[str, ...]
    values: tuple[Tensor, ...]
    common_steps: int | None = None

    @classmethod
    def of(cls, grid: Grid, *, device: torch.device | str, dtype: torch.dtype) -> StrategySpace:
        """The space of field -> values; they become ``dtype``, those that count or name something int64."""
        values = [torch.tensor(values, dtype=torch.float64) for values in grid.values()]
        kept = [
            v.round().long() if name in WHOLE_FIELDS else v.to(dtype)
            for name, v in zip(grid, values, strict=True)
        ]
        steps = grid.get("num_steps", ())
        common_steps = round(steps[0]) if len(steps) == 1 else None
        return cls(tuple(grid), tuple(v.to(device) for v in kept), common_steps)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many options each head has."""
        return tuple(len(values) for values in self.values)

    def decode(self, action_BK: Tensor) -> Strategy:
        """Indices int64 [B,K] -> the strategy of each image, its fields [B]."""
        chosen = {
            name: values[action_BK[:, k]]
            for k, (name, values) in enumerate(zip(self.names, self.values, strict=True))
        }
        return Strategy(**chosen, common_steps=self.common_steps)

    def counts(self, action_BK: Tensor) -> Tensor:
        """How often each option was taken, heads one after the other, [sum V_k] float32."""
        counts = torch.zeros(sum(self.sizes), device=action_BK.device)
        first = 0
        for k, size in enumerate(self.sizes):
            # Not bincount: on a GPU it makes the host wait for the largest index.
            counts.index_add_(0, action_BK[:, k] + first, counts.new_ones(len(action_BK)))
            first += size
        return counts

    def per_field(self, counts: Sequence[float]) -> dict[str, list[float]]:
        """``counts`` as above, field by field."""
        left = iter(counts)
        return {
            name: [next(left) for _ in range(size)] for name, size in zip(self.names, self.sizes, strict=True)
        }
