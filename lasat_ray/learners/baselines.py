"""What is subtracted from the reward: it changes no expected gradient, only how much it spreads."""

from __future__ import annotations

import torch
from torch import Tensor

from lasat_ray.config import TrainConfig
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import Rollout

_RUNNING_DECAY = 0.9
_TINY = 1e-8  # keeps equal advantages from being divided by a deviation of zero


def chosen_baseline(config: TrainConfig, own: str) -> str:
    """The kind of baseline that a run uses; ``own`` is the learner's choice. A reward that is the
    same for the whole batch would be cancelled by its mean: there rounds are compared instead."""
    kind = config.policy.baseline
    if kind != "learner":
        return kind
    return "running" if own == "mean" and config.reward.credit == "batch" else own


def batch_baseline(kind: str, reward_B: Tensor, global_size: int, group: ProcessGroup) -> Tensor | float:
    """The baseline that the round's rewards [B] alone give, over the global batch; 0-d or [B].

    ``leave-one-out``: for image n the mean reward of the N - 1 others, which keeps the gradient
    unbiased where the plain mean shrinks it by (N-1)/N.
    """
    if kind == "none":
        return 0.0
    total = group.sum(reward_B.sum())
    if kind == "mean":
        return total / global_size
    assert kind == "leave-one-out", kind
    return (total - reward_B) / max(global_size - 1, 1)


class RunningBaseline:
    """Exponential average of the rounds' mean rewards; the first round is its own baseline."""

    def __init__(self) -> None:
        self.mean: Tensor | None = None

    def __call__(self, rollout: Rollout, group: ProcessGroup) -> Tensor:
        """The baseline of this round, 0-d; takes the round into the average afterwards."""
        mean = group.sum(rollout.reward.sum()) / rollout.global_size
        before = mean if self.mean is None else self.mean
        self.mean = _RUNNING_DECAY * before + (1 - _RUNNING_DECAY) * mean
        return before


def normalized(advantage_B: Tensor, global_size: int, group: ProcessGroup) -> Tensor:
    """To mean 0 and deviation 1 over the global batch; [B] -> [B]."""
    centered = advantage_B - group.sum(advantage_B.sum()) / global_size
    deviation = torch.sqrt(group.sum((centered**2).sum()) / global_size)
    return centered / (deviation + _TINY)
