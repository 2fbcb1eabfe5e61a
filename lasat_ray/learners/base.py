"""What a learner is to the round: it acts on images and, when paid, updates itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lasat_ray.config import TrainConfig
from lasat_ray.models import build_features, check_trainable
from lasat_ray.plugins import Plugin
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.strategy.net import StrategyNet, log_prob, sample
from lasat_ray.strategy.space import StrategySpace
from lasat_ray.types import Action, LearnerReport, Rollout


class Learner(Protocol):
    """Chooses strategies and learns from rewards. State must round-trip through ``state_dict``:
    nested dicts and lists of tensors, numbers and strings.

    For --policy.baseline greedy a learner also has ``greedy(x) -> Action``, its likeliest strategies.
    ``RemembersActing`` is for those that want something of the acting back with the reward.
    """

    def act(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """Images [B,C,H,W] in [0,1], their rows [B] and a key of random numbers -> one action each, index
        [B,K] and log_prob [B]."""
        ...

    def update(self, rollout: Rollout) -> LearnerReport:
        """Learn from one rewarded round, this worker's images of it (reward [B]); collective over workers."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs of it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, on whatever device that lies."""
        ...


@runtime_checkable
class RemembersActing(Protocol):
    """A learner that is asked by ``act_to_learn`` in rounds that will be rewarded. What it puts into the
    action's ``memory``, for example the forward pass that it chose by, comes back in the rollout's."""

    def act_to_learn(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """As ``Learner.act``: x [B,C,H,W], index [B] -> index [B,K]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerContext:
    """What a learner may build itself from. ``image_shape`` (C,H,W) of what it sees, for the strategy
    ``class-wise`` a one-hot label, (N,1,1); ``total_rounds``: length of the run; ``progress``: where the run
    has a budget, returns the share in [0,1) that schedules go by, else None; ``step_costs``: what a round
    with each number of steps of the grid costs, over the average; () where a policy is only loaded."""

    space: StrategySpace
    image_shape: tuple[int, int, int]
    config: TrainConfig
    group: ProcessGroup
    device: torch.device
    total_rounds: int = 1
    progress: Callable[[], float | None] = field(default=lambda: None)
    step_costs: tuple[float, ...] = ()

    @property
    def total_updates(self) -> int:
        """How many rounds of the run are rewarded; at least 1."""
        return max(1, self.total_rounds // self.config.update_interval)

    def features(self) -> tuple[nn.Module, int]:
        """A fresh strategy backbone, images [B,C,H,W] -> [B,F], and F. Labels need none: a linear head on
        a one-hot label is a table of logits, a row per class."""
        config = self.config
        if config.strategy == "class-wise":
            return nn.Flatten(), self.image_shape[0]
        net, dim = build_features(
            config.strategy_model,
            image_shape=self.image_shape,
            precision=config.precision,
            field="--strategy-model",
            channels_last=config.speed.channels_last,
        )
        share, name = config.batch_size // self.group.size, config.strategy_model
        if ":" in name and config.learns:
            check_trainable(net, self.image_shape, share, Plugin("--strategy-model", name))
        return net, dim

    def strategy_net(self) -> StrategyNet:
        """A fresh strategy net on the chosen backbone, the same on every worker."""
        features, dim = self.features()
        policy = self.config.policy
        net = StrategyNet(
            features,
            dim,
            self.space,
            min_exploration=policy.min_exploration,
            ordinal=policy.head == "ordinal",
            first_logits=self._first_logits(),
        )
        if self.config.precision == "fp64":
            net.double()
        net.to(self.device)
        self.group.broadcast_from_first(net)
        return net

    def _first_logits(self) -> dict[str, Tensor]:
        """Logits [V] that the numbers of steps start with: before a gain is known a price is all there is."""
        price = self.config.policy.initial_price
        return {"num_steps": -price * torch.tensor(self.step_costs)} if price and self.step_costs else {}


def policy_optimizer(net: nn.Module, context: LearnerContext) -> torch.optim.Optimizer:
    """The optimizer that --policy.* describes."""
    policy = context.config.policy
    if policy.optimizer == "adam":
        return torch.optim.AdamW(net.parameters(), lr=policy.lr, weight_decay=policy.weight_decay)
    return torch.optim.SGD(
        net.parameters(), lr=policy.lr, momentum=policy.momentum, weight_decay=policy.weight_decay
    )


def draw(log_probs: list[Tensor], index: Tensor, key: RandomKey) -> Action:
    """Sample every head, [B,V_k] each -> index [B,K]; a draw depends on its image's ``index`` [B] alone."""
    action = sample(log_probs, key.uniform(index, (len(log_probs),), torch.float64))
    return Action(index=action, log_prob=log_prob(log_probs, action))


def sums_by(place_B: Tensor, value_B: Tensor, size: int) -> Tensor:
    """The sum of the values [B] at each of the places 0 .. ``size`` - 1; [size]. In a fixed order: on a GPU
    ``index_add`` adds in that of its threads, and has other last bits each time."""
    here = place_B[:, None] == torch.arange(size, device=place_B.device)
    return torch.where(here, value_B[:, None], 0.0).sum(0)
