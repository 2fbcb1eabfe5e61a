"""Controls: strategies that nobody learns. What a learned strategy has to beat."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lasat_ray.learners.base import LearnerContext
from lasat_ray.process_group import numbers_like, to_device
from lasat_ray.rng import RandomKey
from lasat_ray.types import Action, LearnerReport, Rollout


class Fixed:
    """Always the first option of every head; with single-valued heads, plain PGD-AT."""

    def __init__(self, context: LearnerContext):
        self.sizes = context.space.sizes

    def act(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """index 0 everywhere, [B,K]; log_prob 0."""
        zeros = torch.zeros(len(x), len(self.sizes), dtype=torch.int64, device=x.device)
        return Action(index=zeros, log_prob=torch.zeros(len(x), dtype=x.dtype, device=x.device))

    def update(self, rollout: Rollout) -> LearnerReport:
        """Return an empty report: a control learns nothing."""
        return LearnerReport()

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state: nothing is learned."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore nothing: there is no state."""
        assert not state, "a control has no state"


class Curriculum(Fixed):
    """Every head walks through its options in the order of the grid, from the first to the last,
    in equal parts of the run: attacks that grow by the clock."""

    def __init__(self, context: LearnerContext):
        super().__init__(context)
        self.total_rounds, self.progress = context.total_rounds, context.progress
        self.round = 0

    def act(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """The present option of every head for all images, [B,K]; log_prob 0."""
        done = min(self.round, self.total_rounds - 1)
        progress = self.progress()
        if progress is None:
            option = [done * size // self.total_rounds for size in self.sizes]
        else:
            option = [int(progress * size) for size in self.sizes]
        self.round += 1
        action = to_device(torch.tensor(option), x.device).expand(len(x), -1)
        return Action(index=action, log_prob=torch.zeros(len(x), dtype=x.dtype, device=x.device))

    def state_dict(self) -> dict[str, Any]:
        """Return ``round``, the number of rounds that were played."""
        return {"round": self.round}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.round = state["round"]


class Margin(Fixed):
    """The larger an image's margin, the further its option lies in every head's grid: of V options the
    first goes to the V-th part of the batch with the smallest margins, the last to that with the largest.

    That images far from the decision boundary are given the stronger attack is what instance-wise methods
    share (Balaji et al. 2019, IAAT; Ding et al. 2020, MMA). This rule is none of
    theirs: it needs no search and no memory, and its mean cost is that of the grid.
    """

    def act(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """``x`` [B,1,1,1]: the place of each image's margin among the batch's, in [0,1) -> index [B,K]."""
        place = x.flatten(1)[:, 0].double()
        # Places are k / N: what a product falls short of a whole number by is rounding, not an image's.
        option = [(place * size + 1e-6).long().clamp(max=size - 1) for size in self.sizes]
        return Action(index=torch.stack(option, 1), log_prob=torch.zeros_like(x[:, 0, 0, 0]))


class Random(Fixed):
    """Every option of every head equally likely, image by image."""

    def act(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """index [B,K] drawn by the images' rows; log_prob [B] of a uniform draw, in nats."""
        uniform_BK = key.uniform(index, (len(self.sizes),), torch.float64)
        sizes = numbers_like(uniform_BK, self.sizes)
        log_prob = -sum(math.log(size) for size in self.sizes)
        return Action(index=(uniform_BK * sizes).long(), log_prob=x.new_full((len(x),), log_prob))
