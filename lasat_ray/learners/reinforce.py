"""REINFORCE on a contextual bandit (Williams 1992; LAS-AT, eq. 12) with a choice of baselines."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lasat_ray.learners.base import LearnerContext, act_by_net, policy_optimizer
from lasat_ray.models import batch_norm_buffers
from lasat_ray.rng import Stream
from lasat_ray.strategy.net import entropy, log_prob
from lasat_ray.types import Action, LearnerReport, Rollout
from lasat_ray.world import World, gradients

_RUNNING_DECAY = 0.9


def reinforce_loss(
    log_prob_B: Tensor, reward_B: Tensor, baseline: Tensor | float, global_size: int
) -> Tensor:
    """-(1/N) sum_n (reward_n - baseline_n) log p(a_n | x_n); descending it ascends the reward.

    N is the global batch: summing this over workers gives the mean over all images.
    """
    return -((reward_B - baseline).detach() * log_prob_B).sum() / global_size


def baseline_of(kind: str, reward_B: Tensor, global_size: int, world: World) -> Tensor | float:
    """The baseline that needs no memory, over the global batch; scalar or [B].

    ``leave-one-out``: for image n the mean reward of the N - 1 others, which keeps the gradient
    unbiased where the plain mean shrinks it by (N-1)/N.
    """
    if kind == "none":
        return 0.0
    total = world.sum(reward_B.sum())
    if kind == "mean":
        return total / global_size
    assert kind == "leave-one-out", kind
    return (total - reward_B) / max(global_size - 1, 1)


class Reinforce:
    """One policy-gradient step a rewarded round, gradients averaged over workers."""

    def __init__(self, context: LearnerContext):
        self.config = context.config.policy
        self.world = context.world
        self.net = context.strategy_net()
        self.optimizer = policy_optimizer(self.net, context)
        self.running_reward: float | None = None

    def act(self, x: Tensor, index: Tensor, stream: Stream) -> Action:
        return act_by_net(self.net, x, index, stream)

    def update(self, rollout: Rollout) -> LearnerReport:
        """Ascend the expected reward; metrics: entropy in nats, gradient norm, advantage spread."""
        baseline = self._baseline(rollout)
        self.net.train()
        log_probs = self.net(rollout.x)
        entropy_B = entropy(log_probs)
        loss = reinforce_loss(
            log_prob(log_probs, rollout.action), rollout.reward, baseline, rollout.global_size
        )
        bonus = self.config.entropy_weight * entropy_B.sum() / rollout.global_size
        grad_norm = self._descend(loss - bonus, len(rollout.x) / rollout.global_size)
        return LearnerReport(
            per_image={"policy_entropy": entropy_B.detach()},
            scalars={"policy_grad_norm": grad_norm},
        )

    def _baseline(self, rollout: Rollout) -> Tensor | float:
        if self.config.baseline != "running":
            return baseline_of(self.config.baseline, rollout.reward, rollout.global_size, self.world)
        mean = float(self.world.sum(rollout.reward.sum())) / rollout.global_size
        before = mean if self.running_reward is None else self.running_reward
        self.running_reward = _RUNNING_DECAY * before + (1 - _RUNNING_DECAY) * mean
        return before

    def _descend(self, loss: Tensor, share: float) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        buffers = batch_norm_buffers(self.net)
        if self.world.size > 1:
            for buffer in buffers:
                buffer.mul_(share)
        self.world.sum_in_place(gradients(self.net.parameters()) + buffers)
        parameters = list(self.net.parameters())
        grad_norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self.config.grad_clip, grad_norm)
        self.optimizer.step()
        return grad_norm

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "running_reward": self.running_reward,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.running_reward = state["running_reward"]
