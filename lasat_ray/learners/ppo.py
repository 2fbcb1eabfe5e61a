"""Proximal policy optimization, clipped (Schulman et al. 2017, eq. 7), on a contextual bandit."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lasat_ray.learners.epochs import EpochLearner
from lasat_ray.strategy.net import divergence, log_prob
from lasat_ray.types import Rollout


def clipped_loss(ratio_B: Tensor, advantage_B: Tensor, clip: float) -> Tensor:
    """-min(r A, clip(r, 1 - clip, 1 + clip) A) of each image (eq. 7); [B], [B] -> [B]."""
    return -torch.minimum(ratio_B * advantage_B, ratio_B.clamp(1 - clip, 1 + clip) * advantage_B)


class PPO(EpochLearner):
    """The ratio is of the joint strategy's probabilities now and when it acted. Episodes are one step
    long, so generalized advantage estimation is r - V(x) whatever its lambda."""

    own_baseline: ClassVar[str] = "value"

    def prepare(self, rollout: Rollout, before: list[Tensor], advantage_B: Tensor) -> None:
        """Keep the policy that acted, [B,V_k] a head, and the advantages [B]."""
        self.rollout, self.before, self.advantage_B = rollout, before, advantage_B

    def loss(self, log_probs: list[Tensor], rows: Tensor) -> Tensor:
        """``clipped_loss`` summed over the images ``rows`` [M]; 0-d."""
        now = log_prob(log_probs, self.rollout.action[rows])
        ratio = torch.exp(now - self.rollout.log_prob[rows])
        return clipped_loss(ratio, self.advantage_B[rows], self.config.clip).sum()

    @torch.no_grad()
    def moved_enough(self, rollout: Rollout) -> bool:
        """Schulman's early stop, on the exact divergence; asks the device, so only when it is set."""
        if self.config.target_kl is None:
            return False
        moved = divergence(self.before, self.net(rollout.x)).sum()
        return float(self.group.sum(moved)) / rollout.global_size > 1.5 * self.config.target_kl
