"""Bandits that do not look at the image: what UCB and Thompson sampling know about each joint strategy.

They are the contextual learners' control: the most that one strategy for all images can earn.
Arms are joint strategies, not single fields: the proofs want arms whose reward does not change
with what other heads do, and deterministic heads would move in step and confuse their effects.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lasat_ray.learners.base import LearnerContext, sums_by
from lasat_ray.types import LearnerReport, Rollout


class JointArms:
    """Discounted counts and reward sums, [A] each, of the A = prod V_k joint strategies, over all workers.

    Rewards have no fixed range, so bounds are in units of their own standard deviation.
    """

    def __init__(self, context: LearnerContext):
        self.config = context.config.policy
        self.group = context.group
        self.seed = context.config.seed
        self.global_size = context.config.batch_size
        self.sizes = context.space.sizes
        zeros = torch.zeros(math.prod(self.sizes), dtype=torch.float64, device=context.device)
        self.count, self.total = zeros, zeros.clone()
        self.square = zeros.new_zeros(())

    def update(self, rollout: Rollout) -> LearnerReport:
        """Forget a little, then count the round; metric: the estimated best arm's mean reward."""
        reward = rollout.reward.double()
        arm = self.arm_of(rollout.action)
        arms = len(self.count)
        seen = torch.cat([sums_by(arm, torch.ones_like(reward), arms), sums_by(arm, reward, arms)])
        count, total = self.group.sum(seen).chunk(2)
        square = self.group.sum((reward**2).sum())
        keep = self.config.discount
        self.count, self.total = keep * self.count + count, keep * self.total + total
        self.square = keep * self.square + square
        known = self.count > 0.5
        best = torch.where(known, self.total / self.count.clamp(min=0.5), -math.inf).amax()
        return LearnerReport(scalars={"best_arm_mean": best})

    def mean_and_deviation(self) -> tuple[Tensor, Tensor]:
        """Of all rewards so far, 0-d; 0 and 1 before the first."""
        n = self.count.sum()
        mean = self.total.sum() / n.clamp(min=1e-300)
        variance = (self.square / n.clamp(min=1e-300) - mean**2).clamp(min=0)
        return mean, torch.where(n > 0, variance.sqrt(), torch.ones_like(n))

    def arm_of(self, action_BK: Tensor) -> Tensor:
        """Indices per head [B,K] -> joint arm [B]; the last head counts fastest."""
        arm = torch.zeros_like(action_BK[:, 0])
        for k, size in enumerate(self.sizes):
            arm = arm * size + action_BK[:, k]
        return arm

    def action_of(self, arm_B: Tensor) -> Tensor:
        """Return the index [B,K] of every field that an arm [B] stands for; the inverse of ``arm_of``."""
        columns = []
        for size in reversed(self.sizes):
            columns.append(arm_B % size)
            arm_B = arm_B // size
        return torch.stack(columns[::-1], dim=1)

    def state_dict(self) -> dict[str, Any]:
        """``count``, ``total`` [A] and ``square`` 0-d."""
        return {"count": self.count, "total": self.total, "square": self.square}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        device = self.count.device
        self.count, self.total, self.square = (state[n].to(device) for n in ("count", "total", "square"))
