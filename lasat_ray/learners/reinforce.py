"""REINFORCE on a contextual bandit (Williams 1992; LAS-AT, eq. 12) with a choice of baselines."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lasat_ray.learners.policy import PolicyLearner, PolicyOutput, Scalars
from lasat_ray.strategy.net import log_prob
from lasat_ray.types import Rollout


def reinforce_loss(
    log_prob_B: Tensor, reward_B: Tensor, baseline: Tensor | float, global_size: int
) -> Tensor:
    """-(1/N) sum_n (reward_n - baseline_n) log p(a_n | x_n); LAS-AT, eq. 12, with the sign turned round.

    ``log_prob_B``, ``reward_B`` [B] -> 0-d; descending it ascends the reward. N is the global batch:
    summing this over workers gives the mean over all images.
    """
    return -((reward_B - baseline).detach() * log_prob_B).sum() / global_size


class Reinforce(PolicyLearner):
    """One policy-gradient step a rewarded round. A value baseline reads the strategy net's features
    and leaves them alone, so that the step is the policy gradient and nothing else."""

    value_shapes_features: ClassVar[bool] = False

    def learn(self, rollout: Rollout, output: PolicyOutput) -> tuple[list[Tensor], Scalars]:
        """One step; returns log-probabilities [B,V_k] a head from before it, and its gradient norm, 0-d."""
        log_probs, value_B = output.log_probs, output.value_B
        advantage_B = self.advantage(rollout, value_B)
        loss = reinforce_loss(log_prob(log_probs, rollout.action), advantage_B, 0.0, rollout.global_size)
        loss = loss + self.extras(log_probs, value_B, rollout.reward) / rollout.global_size
        return [log_p.detach() for log_p in log_probs], {"policy_grad_norm": self.descend(loss)}
