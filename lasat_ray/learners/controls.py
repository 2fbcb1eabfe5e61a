"""Controls: strategies that nobody learns. What a learned strategy has to beat."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lasat_ray.learners.base import LearnerContext
from lasat_ray.rng import Stream
from lasat_ray.types import Action, LearnerReport, Rollout


class Fixed:
    """Always the first option of every head; with single-valued heads, plain PGD-AT."""

    def __init__(self, context: LearnerContext):
        self.sizes = context.space.sizes

    def act(self, x: Tensor, index: Tensor, stream: Stream) -> Action:
        zeros = torch.zeros(len(x), len(self.sizes), dtype=torch.int64, device=x.device)
        return Action(index=zeros, log_prob=torch.zeros(len(x), dtype=x.dtype, device=x.device))

    def update(self, rollout: Rollout) -> LearnerReport:
        return LearnerReport()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state, "a control has no state"


class Random(Fixed):
    """Every option of every head equally likely, image by image."""

    def act(self, x: Tensor, index: Tensor, stream: Stream) -> Action:
        uniform_BK = stream.uniform(index, (len(self.sizes),), torch.float64)
        sizes = torch.tensor(self.sizes, dtype=torch.float64, device=x.device)
        log_prob = -sum(math.log(size) for size in self.sizes)
        return Action(index=(uniform_BK * sizes).long(), log_prob=x.new_full((len(x),), log_prob))
