"""What all learners with a strategy net share: acting, advantages, the entropy bonus, the step."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lasat_ray.learners.base import LearnerContext, act_by_net, policy_optimizer
from lasat_ray.learners.baselines import RunningBaseline, batch_baseline, chosen_baseline, normalized
from lasat_ray.models import batch_norm_buffers
from lasat_ray.rng import Stream
from lasat_ray.strategy.net import divergence, entropies, entropy, log_prob
from lasat_ray.strategy.statistics import follow_statistics
from lasat_ray.types import Action, LearnerReport, Rollout
from lasat_ray.world import gradients

Scalars = dict[str, Tensor]


class PolicyLearner(abc.ABC):
    """A learner is a subclass with ``learn``. Every mean is over the global batch and every gradient
    is summed over workers, so that any number of workers computes what one would."""

    own_baseline: ClassVar[str] = "mean"
    value_shapes_features: ClassVar[bool] = True

    def __init__(self, context: LearnerContext):
        self.config = context.config.policy
        self.world = context.world
        self.seed = context.config.seed
        self.total_updates = context.total_updates
        self.names = context.space.names
        self.baseline = chosen_baseline(context.config, self.own_baseline)
        self.net = context.strategy_net()
        self.value_head: nn.Linear | None = None
        if self.baseline == "value":
            like = next(self.net.heads.parameters())
            self.value_head = nn.Linear(self.net.feature_dim, 1, device=like.device, dtype=like.dtype)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        self.trained = nn.ModuleList([self.net] + ([self.value_head] if self.value_head else []))
        self.optimizer = policy_optimizer(self.trained, context)
        self.running = RunningBaseline()
        self.updates = 0

    def act(self, x: Tensor, index: Tensor, stream: Stream) -> Action:
        """x [B,C,H,W] -> index [B,K], drawn from the strategy net."""
        return act_by_net(self.net, x, index, stream)

    @torch.no_grad()
    def greedy(self, x: Tensor) -> Action:
        """The likeliest option of every head: x [B,C,H,W] -> index [B,K]."""
        self.net.eval()
        log_probs = self.net(x)
        action = torch.stack([log_p.argmax(1) for log_p in log_probs], dim=1)
        return Action(index=action, log_prob=log_prob(log_probs, action))

    def update(self, rollout: Rollout) -> LearnerReport:
        """Learn from a round. Metrics: entropy of the policy that acted, together and head by head, and
        the divergence of the updated policy from it, in nats."""
        self.net.eval()
        if self.updates == 0:
            self._begin(rollout)
        before, scalars = self.learn(rollout)
        after = self._follow(rollout)
        self.updates += 1
        heads = entropies(before)
        per_image = {f"policy_entropy_{name}": h for name, h in zip(self.names, heads, strict=True)}
        per_image |= {"policy_entropy": torch.stack(heads).sum(0), "policy_kl": divergence(before, after)}
        return LearnerReport(per_image=per_image, scalars=scalars)

    @abc.abstractmethod
    def learn(self, rollout: Rollout) -> tuple[list[Tensor], Scalars]:
        """Move the weights; returns the log-probabilities from before, [B,V_k] a head, and metrics, 0-d."""

    def see(self, x: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """x [B,C,H,W] -> log-probabilities, [B,V_k] a head, and where there is a value net V(x) [B]."""
        hidden = self.net.hidden(x)
        if self.value_head is None:
            return self.net.choose(hidden), None
        seen = hidden if self.value_shapes_features else hidden.detach()
        return self.net.choose(hidden), self.value_head(seen)[:, 0]

    def advantage(self, rollout: Rollout, value_B: Tensor | None) -> Tensor:
        """Reward minus baseline, [B], without gradient."""
        reward_B = rollout.reward
        if self.baseline == "value":
            assert value_B is not None
            baseline: Tensor | float = value_B.detach()
        elif self.baseline == "greedy":
            assert rollout.greedy_reward is not None, "the round rehearses the greedy action"
            baseline = rollout.greedy_reward
        elif self.baseline == "running":
            baseline = self.running(rollout, self.world)
        else:
            baseline = batch_baseline(self.baseline, reward_B, rollout.global_size, self.world)
        advantage_B = (reward_B - baseline).detach()
        if not self.config.normalize_advantage:
            return advantage_B
        return normalized(advantage_B, rollout.global_size, self.world)

    def entropy_weight(self) -> float:
        """Weight of the bonus at this update."""
        first, last, course = (
            self.config.entropy_weight,
            self.config.entropy_final,
            self.config.entropy_schedule,
        )
        if course == "constant":
            return first
        progress = min(1.0, self.updates / max(1, self.total_updates - 1))
        rest = 1 - progress if course == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        return last + (first - last) * rest

    def extras(self, log_probs: list[Tensor], value_B: Tensor | None, reward_B: Tensor) -> Tensor:
        """What every loss adds, summed over images (0-d): minus the entropy bonus, plus half the squared
        error of ``value_B`` [B]; ``log_probs`` [B,V_k] a head."""
        loss = -self.entropy_weight() * entropy(log_probs).sum()
        if value_B is not None:
            loss = loss + self.config.value_weight * 0.5 * ((value_B - reward_B) ** 2).sum()
        return loss

    def descend(self, loss: Tensor | None) -> Tensor:
        """One optimizer step on the sum of all workers' losses; None: no image of it is here. Returns the
        gradient's norm before clipping, 0-d."""
        self.optimizer.zero_grad(set_to_none=True)
        if loss is not None:
            loss.backward()
        parameters = list(self.trained.parameters())
        self.world.sum_in_place(gradients(parameters))
        grad_norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self.config.grad_clip, grad_norm)
        self.optimizer.step()
        return grad_norm

    @torch.no_grad()
    def _begin(self, rollout: Rollout) -> None:
        """Before the first update: statistics of normalization layers (the heads are still zero, so what
        was sampled stays as likely), and a value net that starts at the mean reward."""
        if batch_norm_buffers(self.net):
            self._follow(rollout)
        if self.value_head is not None:
            self.value_head.bias.fill_(0).add_(self.world.sum(rollout.reward.sum()) / rollout.global_size)

    def _follow(self, rollout: Rollout) -> list[Tensor]:
        first = self.updates == 0
        return follow_statistics(self.net, rollout.x, rollout.global_size, self.world, first=first)

    def state_dict(self) -> dict[str, Any]:
        """Nets, optimizer, running mean of the reward and number of updates."""
        return {
            "net": self.net.state_dict(),
            "value_head": None if self.value_head is None else self.value_head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "running_reward": self.running.mean,
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""
        self.net.load_state_dict(state["net"])
        if self.value_head is not None:
            self.value_head.load_state_dict(state["value_head"])
        self.optimizer.load_state_dict(state["optimizer"])
        mean, device = state["running_reward"], next(self.net.parameters()).device
        self.running.mean = None if mean is None else torch.as_tensor(mean, device=device)
        self.updates = state["updates"]
