"""Exp3 (Auer, Cesa-Bianchi, Freund and Schapire 2002, fig. 1), one per head, blind to the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lasat_ray.learners.base import LearnerContext, draw, sums_by
from lasat_ray.rng import RandomKey
from lasat_ray.strategy.net import divergence, entropies, explored
from lasat_ray.types import Action, LearnerReport, Rollout

_RANGE = 3.0  # rewards within so many deviations of the mean are told apart


def exp3_step(log_weight_V: Tensor, p_V: Tensor, taken_B: Tensor, reward_B: Tensor, gamma: float) -> Tensor:
    """log w + (gamma / V) sum over pulls of reward / p(taken): this worker's part of the step; [V].

    ``reward_B`` in [0,1]; all pulls were drawn from ``p_V``.
    """
    return gamma / len(p_V) * sums_by(taken_B, reward_B / p_V[taken_B], len(log_weight_V))


class Exp3:
    """A bandit for every strategy field. Its guarantee holds whatever chooses the rewards, so also
    while the other heads and the target net move. gamma is --policy.min_exploration.

    Exp3 wants rewards in [0,1]: 0 and 1 are three standard deviations below and above the mean of
    all rewards so far, and what lies further out is clipped.
    """

    def __init__(self, context: LearnerContext):
        self.gamma = context.config.policy.min_exploration
        self.group = context.group
        self.names = context.space.names
        self.log_weights = [
            torch.zeros(size, dtype=torch.float64, device=context.device) for size in context.space.sizes
        ]
        self.moments = torch.zeros(3, dtype=torch.float64, device=context.device)  # count, sum, squares

    def log_probs(self) -> list[Tensor]:
        """(1 - gamma) w / sum w + gamma / V of every head, as log-probabilities, [1,V] each."""
        return [explored(torch.log_softmax(w, 0)[None], self.gamma) for w in self.log_weights]

    def act(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """index [B,K] drawn from the same distributions for every image."""
        log_probs = [log_p.expand(len(x), -1) for log_p in self.log_probs()]
        action = draw(log_probs, index, key)
        return Action(index=action.index, log_prob=action.log_prob.to(x.dtype))

    def update(self, rollout: Rollout) -> LearnerReport:
        """Exponential weights on the round's pulls; metrics: entropies and divergence in nats."""
        reward = self._scaled(rollout.reward.double())
        before = self.log_probs()
        for k, (weight, log_p) in enumerate(zip(self.log_weights, before, strict=True)):
            step = exp3_step(weight, log_p[0].exp(), rollout.action[:, k], reward, self.gamma)
            moved = weight + self.group.sum(step)
            self.log_weights[k] = moved - moved.max()  # only differences count
        heads, size = entropies(before), len(reward)
        per_image = {
            f"policy_entropy_{name}": h.expand(size) for name, h in zip(self.names, heads, strict=True)
        }
        per_image["policy_entropy"] = torch.stack(heads).sum(0).expand(size)
        per_image["policy_kl"] = divergence(before, self.log_probs()).expand(size)
        return LearnerReport(per_image=per_image)

    def _scaled(self, reward_B: Tensor) -> Tensor:
        """Rewards mapped into [0,1] by the moments of all so far, this round included."""
        ones = torch.ones_like(reward_B)
        seen = torch.stack([ones.sum(), reward_B.sum(), (reward_B**2).sum()])
        self.moments = self.moments + self.group.sum(seen)
        count, total, square = self.moments.unbind()
        mean = total / count
        deviation = (square / count - mean**2).clamp(min=0).sqrt() + 1e-12
        return (0.5 + (reward_B - mean) / (2 * _RANGE * deviation)).clamp(0, 1)

    def state_dict(self) -> dict[str, Any]:
        """``log_weights`` [V] a head; ``moments`` [3]: number, sum and squares of rewards."""
        return {"log_weights": self.log_weights, "moments": self.moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        device = self.moments.device
        self.log_weights = [weight.to(device) for weight in state["log_weights"]]
        self.moments = state["moments"].to(device)
