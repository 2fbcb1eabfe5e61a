"""What all learners with a strategy net share: acting, advantages, the entropy bonus, the step."""

from __future__ import annotations

import abc
import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lasat_ray.learners.base import LearnerContext, draw, policy_optimizer
from lasat_ray.learners.baselines import RunningBaseline, batch_baseline, chosen_baseline, normalized
from lasat_ray.models import batch_norm_buffers
from lasat_ray.process_group import gradients
from lasat_ray.rng import RandomKey
from lasat_ray.strategy.net import divergence, entropies, entropy, log_prob
from lasat_ray.strategy.statistics import Moments, follow, initialise_statistics, observed
from lasat_ray.types import Action, LearnerReport, Rollout

Scalars = dict[str, Tensor]
_KL_SAMPLE_STRIDE = 8  # of so many images one tells how far an update moved the policy


@dataclass(frozen=True, slots=True)
class PolicyOutput:
    """One forward pass of the strategy net over a round's images: log-probabilities [B,V_k] a head, V(x) [B]
    where there is a value net, and what BatchNorm saw. With ``learns_from_acting_pass`` the first two are
    tied to the weights, for one backward pass."""

    log_probs: list[Tensor]
    value_B: Tensor | None
    moments: list[Moments]


class PolicyLearner(abc.ABC):
    """A learner is a subclass with ``learn``. Every mean is over the global batch and every gradient
    is summed over workers, so that any number of workers computes what one would."""

    own_baseline: ClassVar[str] = "mean"
    value_shapes_features: ClassVar[bool] = True
    learns_from_acting_pass: ClassVar[bool] = True
    """Keep the graph of the forward pass that acts until the reward is there: saves a pass and costs its
    memory meanwhile."""

    def __init__(self, context: LearnerContext):
        self.config = context.config.policy
        self.group = context.group
        self.seed = context.config.seed
        self.total_updates, self.progress = context.total_updates, context.progress
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

    @torch.no_grad()
    def act(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """x [B,C,H,W] -> index [B,K], drawn from the strategy net."""
        self.net.eval()
        return draw(self.net(x), index, key)

    def act_to_learn(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """The same action for images [B,C,H,W] -> index [B,K] of a round that will be rewarded; its memory
        is the ``PolicyOutput`` that it was drawn from, from which ``update`` learns."""
        if self.updates == 0 and self._has_a_beginning:
            return self.act(x, index, key)
        output = self._output_of(x)
        action = draw([log_p.detach() for log_p in output.log_probs], index, key)
        return dataclasses.replace(action, memory=output)

    @torch.no_grad()
    def greedy(self, x: Tensor) -> Action:
        """The likeliest option of every head: x [B,C,H,W] -> index [B,K]."""
        self.net.eval()
        log_probs = self.net(x)
        action = torch.stack([log_p.argmax(1) for log_p in log_probs], dim=1)
        return Action(index=action, log_prob=log_prob(log_probs, action))

    def update(self, rollout: Rollout) -> LearnerReport:
        """Learn from a round. Metrics: entropy of the policy that acted, together and head by head, and
        the divergence of the updated policy from it, in nats, over every eighth image of the global batch."""
        self.net.eval()
        if self.updates == 0 and self._has_a_beginning:
            self._begin(rollout)
        output = rollout.memory if rollout.memory is not None else self._output_of(rollout.x)
        before, scalars = self.learn(rollout, output)
        follow(output.moments, len(rollout.x) / rollout.global_size, self.group)
        self.updates += 1
        heads = entropies(before)
        per_image = {f"policy_entropy_{name}": h for name, h in zip(self.names, heads, strict=True)}
        per_image["policy_entropy"] = torch.stack(heads).sum(0)
        return LearnerReport(
            per_image=per_image, scalars=scalars | {"policy_kl": self._moved(rollout, before)}
        )

    @abc.abstractmethod
    def learn(self, rollout: Rollout, output: PolicyOutput) -> tuple[list[Tensor], Scalars]:
        """Move the weights, given what the net said before; returns the log-probabilities from before,
        [B,V_k] a head, and metrics, 0-d."""

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
            baseline = self.running(rollout, self.group)
        else:
            baseline = batch_baseline(self.baseline, reward_B, rollout.global_size, self.group)
        advantage_B = (reward_B - baseline).detach()
        if not self.config.normalize_advantage:
            return advantage_B
        return normalized(advantage_B, rollout.global_size, self.group)

    def entropy_weight(self) -> float:
        """Weight of the bonus at this update."""
        first, last, course = (
            self.config.entropy_weight,
            self.config.entropy_final,
            self.config.entropy_schedule,
        )
        if course == "constant":
            return first
        progress = self.progress()
        if progress is None:
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
        self.group.sum_in_place(gradients(parameters))
        grad_norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self.config.grad_clip, grad_norm)
        self.optimizer.step()
        return grad_norm

    @property
    def _has_a_beginning(self) -> bool:
        """Whether the first update changes what the net says before it learns."""
        return self.value_head is not None or bool(batch_norm_buffers(self.net))

    @torch.no_grad()
    def _begin(self, rollout: Rollout) -> None:
        """Before the first update: statistics of normalization layers (the heads are still zero, so what
        was sampled stays as likely), and a value net that starts at the mean reward."""
        if batch_norm_buffers(self.net):
            initialise_statistics(self.net, rollout.x, len(rollout.x) / rollout.global_size, self.group)
        if self.value_head is not None:
            self.value_head.bias.fill_(0).add_(self.group.sum(rollout.reward.sum()) / rollout.global_size)

    def _output_of(self, x: Tensor) -> PolicyOutput:
        self.net.eval()
        with torch.set_grad_enabled(self.learns_from_acting_pass), observed(self.net) as moments:
            log_probs, value_B = self.see(x)
        return PolicyOutput(log_probs, value_B, moments)

    @torch.no_grad()
    def _moved(self, rollout: Rollout, before: list[Tensor]) -> Tensor:
        """Mean divergence of the policy now from ``before`` [B,V_k] a head, 0-d; of a sample of the global
        batch, which does for a figure that is only looked at."""
        first, _ = self.group.shard_bounds(rollout.global_size)
        some = slice(-first % _KL_SAMPLE_STRIDE, None, _KL_SAMPLE_STRIDE)
        x, moved = rollout.x[some], before[0].new_zeros(())
        if len(x):
            moved = divergence([log_p[some] for log_p in before], self.net(x)).sum()
        return self.group.sum(moved) / math.ceil(rollout.global_size / _KL_SAMPLE_STRIDE)

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
        """Restore what ``state_dict`` returned."""
        self.net.load_state_dict(state["net"])
        if self.value_head is not None:
            self.value_head.load_state_dict(state["value_head"])
        self.optimizer.load_state_dict(state["optimizer"])
        mean, device = state["running_reward"], next(self.net.parameters()).device
        self.running.mean = None if mean is None else torch.as_tensor(mean, device=device)
        self.updates = state["updates"]
