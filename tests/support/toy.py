"""A toy bandit with a known optimum, and a strategy backbone that costs nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.learners import Learner
from lasat_ray.rng import RandomKey
from lasat_ray.strategy import StrategySpace
from lasat_ray.types import Rollout
from tests.support.helpers import seeded_learner, small_config

GRID = {"eps": (0.1, 0.2, 0.3), "num_steps": (1.0, 2.0), "step_size": (0.1,)}
N = 64
FAST = {"strategy_model": "tests.support.toy:flat", "batch_size": N}
ADAM = {"policy__optimizer": "adam", "policy__lr": 3e-3, "policy__grad_clip": 0.0}
FEW = {"policy__update_epochs": 2, "policy__minibatches": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "reinforce": ADAM,
    "a2c": ADAM,
    "ppo": {**ADAM, **FEW},
    "mirror-descent": {**ADAM, **FEW, "policy__mirror_step": 0.3},
    "ucb": {"policy__exploration": 0.5},
    "thompson": {},
    "exp3": {"policy__min_exploration": 0.05},
    "random": {},
    "fixed": {},
    "curriculum": {},
    "sb3:PPO": {**ADAM, **FEW, "policy__normalize_advantage": True},
    "sb3:A2C": ADAM,
}
"""What each learner is given on the toy bandit."""


def flat(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """The image as it is, rectified: 8x8 pixels to features."""
    channels, height, width = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes), nn.ReLU())


def toy_learner(name: str, **changes: Any) -> Learner:
    control = name in ("random", "fixed", "curriculum")
    named = {"strategy": name} if control else {"learner": name}
    dtype = torch.float64 if changes.get("precision") == "fp64" else torch.float32
    config = small_config(**{**FAST, **SETTINGS[name], **named, **changes})
    return seeded_learner(
        config, StrategySpace.of(changes.get("attack__grid", GRID), device="cpu", dtype=dtype)
    )


class Brightness:
    """The best strategy depends on the image: is its left half, is its top right quarter bright?"""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float32):
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype

    def images(self, count: int) -> tuple[Tensor, Tensor]:
        x = 0.5 * torch.rand(count, 1, 8, 8, generator=self.generator, dtype=self.dtype)
        bright = torch.rand(count, 2, generator=self.generator) < 0.5
        x[:, :, :, :4] += 0.5 * bright[:, 0, None, None, None]
        x[:, :, :4, 4:] += 0.5 * bright[:, 1, None, None, None]
        return x, bright

    @staticmethod
    def reward(bright: Tensor, action: Tensor) -> Tensor:
        """10 and what was right: at most 12; 10 + 5/6 by luck alone, 11 by any good constant."""
        best_eps, best_steps = 2 * bright[:, 0].long(), bright[:, 1].long()
        return 10.0 + (action[:, 0] == best_eps).float() + (action[:, 1] == best_steps).float()

    @staticmethod
    def constant_reward(bright: Tensor, action: Tensor) -> Tensor:
        """The same with (2, 1) right for every image."""
        return 10.0 + (action[:, 0] == 2).float() + (action[:, 1] == 1).float()


def play(learner: Any, game: Brightness, rounds: int, first: int = 0, blind: bool = False) -> Tensor:
    """Rounds of 64 images; the mean reward above 10 of each round."""
    means, index = [], torch.arange(N)
    for round in range(first, first + rounds):
        x, bright = game.images(N)
        action = learner.act(x, index, RandomKey.of(0, "action", round))
        reward = (game.constant_reward if blind else game.reward)(bright, action.index).to(x.dtype)
        means.append(reward.mean() - 10)
        learner.update(rollout_of(x, action, reward))
    return torch.stack(means)


def rollout_of(x: Tensor, action: Any, reward: Tensor) -> Rollout:
    return Rollout(x=x, action=action.index, log_prob=action.log_prob, reward=reward, global_size=len(x))


def state_of(learner: Learner) -> dict[str, Any]:
    return copy.deepcopy(learner.state_dict())
