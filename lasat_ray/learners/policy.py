"""What all learners with a strategy net share: acting, advantages, the entropy bonus, the step."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lasat_ray.learners.base import LearnerContext, draw, policy_optimizer
from lasat_ray.learners.baselines import RunningBaseline, batch_baseline, chosen_baseline, normalized
from lasat_ray.models import batch_norm_buffers
from lasat_ray.process_group import gradients
from lasat_ray.rng import Stream
from lasat_ray.strategy.net import divergence, entropies, entropy, log_prob
from lasat_ray.strategy.statistics import Moments, follow, observed, settle
from lasat_ray.types import Action, LearnerReport, Rollout

Scalars = dict[str, Tensor]
_EVERY = 8  # of so many images one tells how far an update moved the policy


@dataclass(frozen=True, slots=True)
class Look:
    """What the net said of images ``x`` [B,C,H,W]: log-probabilities [B,V_k] a head, V(x) [B] where there
    is a value net, and what BatchNorm saw; ``graph``: tied to the weights."""

    x: Tensor
    log_probs: list[Tensor]
    value_B: Tensor | None
    moments: list[Moments]
    graph: bool


class PolicyLearner(abc.ABC):
    """A learner is a subclass with ``learn``. Every mean is over the global batch and every gradient
    is summed over workers, so that any number of workers computes what one would."""

    own_baseline: ClassVar[str] = "mean"
    value_shapes_features: ClassVar[bool] = True
    learns_from_the_look_that_acts: ClassVar[bool] = True
    """Keep its graph until the reward is there: saves a pass and costs its memory meanwhile."""

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
        self._look: Look | None = None

    @torch.no_grad()
    def act(self, x: Tensor, index: Tensor, stream: Stream) -> Action:
        """x [B,C,H,W] -> index [B,K], drawn from the strategy net."""
        self.net.eval()
        return draw(self.net(x), index, stream)

    def act_to_learn(self, x: Tensor, index: Tensor, stream: Stream) -> Action:
        """The same action for images [B,C,H,W] -> index [B,K] of a round that will be rewarded: what was
        seen is kept for ``update``."""
        if self.updates == 0 and self._has_a_beginning:
            return self.act(x, index, stream)
        self._look = self._look_at(x)
        return draw([log_p.detach() for log_p in self._look.log_probs], index, stream)

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
        if self._look is None or self._look.x is not rollout.x:
            self._look = self._look_at(rollout.x)
        moments = self._look.moments
        before, scalars = self.learn(rollout)
        self._look = None
        follow(moments, len(rollout.x) / rollout.global_size, self.world)
        self.updates += 1
        heads = entropies(before)
        per_image = {f"policy_entropy_{name}": h for name, h in zip(self.names, heads, strict=True)}
        per_image["policy_entropy"] = torch.stack(heads).sum(0)
        return LearnerReport(
            per_image=per_image, scalars=scalars | {"policy_kl": self._moved(rollout, before)}
        )

    @abc.abstractmethod
    def learn(self, rollout: Rollout) -> tuple[list[Tensor], Scalars]:
        """Move the weights; returns the log-probabilities from before, [B,V_k] a head, and metrics, 0-d."""

    def see(self, x: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """x [B,C,H,W] -> log-probabilities, [B,V_k] a head, and where there is a value net V(x) [B]."""
        look = self._look
        if look is not None and look.x is x and (look.graph or not torch.is_grad_enabled()):
            self._look = None  # its graph serves one backward pass
            return look.log_probs, look.value_B
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

    @property
    def _has_a_beginning(self) -> bool:
        """Whether the first update changes what the net says before it learns."""
        return self.value_head is not None or bool(batch_norm_buffers(self.net))

    @torch.no_grad()
    def _begin(self, rollout: Rollout) -> None:
        """Before the first update: statistics of normalization layers (the heads are still zero, so what
        was sampled stays as likely), and a value net that starts at the mean reward."""
        if batch_norm_buffers(self.net):
            settle(self.net, rollout.x, len(rollout.x) / rollout.global_size, self.world)
        if self.value_head is not None:
            self.value_head.bias.fill_(0).add_(self.world.sum(rollout.reward.sum()) / rollout.global_size)

    def _look_at(self, x: Tensor) -> Look:
        self._look, graph = None, self.learns_from_the_look_that_acts
        self.net.eval()
        with torch.set_grad_enabled(graph), observed(self.net) as moments:
            log_probs, value_B = self.see(x)
        return Look(x, log_probs, value_B, moments, graph)

    @torch.no_grad()
    def _moved(self, rollout: Rollout, before: list[Tensor]) -> Tensor:
        """Mean divergence of the policy now from ``before`` [B,V_k] a head, 0-d; of a sample of the global
        batch, which does for a figure that is only looked at."""
        first, _ = self.world.span(rollout.global_size)
        some = slice(-first % _EVERY, None, _EVERY)
        x, moved = rollout.x[some], before[0].new_zeros(())
        if len(x):
            moved = divergence([log_p[some] for log_p in before], self.net(x)).sum()
        return self.world.sum(moved) / math.ceil(rollout.global_size / _EVERY)

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
        self._look = None
