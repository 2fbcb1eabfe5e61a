"""Small builders that several tests share: configs, games, images, given random numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lasat_ray.config import LossConfig, TrainConfig, grid_of
from lasat_ray.data import Images
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.env.build import build_game
from lasat_ray.learners import Learner, LearnerContext, make_learner
from lasat_ray.methods import MethodInputs
from lasat_ray.process_group import ProcessGroup
from lasat_ray.strategy import StrategySpace
from lasat_ray.types import AttackedBatch, Batch, Logits, Strategy
from lasat_ray.update.cost import relative_costs

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = torch.device("cpu")


def golden(name: str) -> dict[str, Any]:
    """Golden vectors by file name, as tensors; single numbers as Python numbers."""
    with np.load(GOLDEN / f"{name}.npz") as npz:
        return {key: npz[key].item() if npz[key].ndim == 0 else torch.tensor(npz[key]) for key in npz}


def close(actual: Tensor | float, expected: Tensor | float, atol: float = 1e-10) -> None:
    """Equal to an absolute tolerance, and in dtype; a Python float is a float64."""
    expected = torch.as_tensor(expected, dtype=torch.float64 if isinstance(expected, float) else None)
    actual = torch.as_tensor(actual, dtype=expected.dtype if isinstance(actual, float) else None)
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def changed(config: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """A config with some paths set: ``{"reward.alpha": 2.0}``."""
    for path, value in changes.items():
        group, _, name = path.rpartition(".")
        if group:
            value = dataclasses.replace(getattr(config, group), **{name: value})
        config = dataclasses.replace(config, **{group or name: value})
    return config


SMALL: dict[str, Any] = {
    "recipe": "digits",
    "dataset": "digits",
    "model": "small_cnn",
    "strategy_model": "small_cnn",
    "method": "pgd-at",
    "strategy": "learned",
    "epochs": 2,
    "batch_size": 32,
    "update_interval": 1,
    "data.max_train": 128,
    "data.max_test": 64,
    "data.val_fraction": 0.1,
    "data.crop_padding": 0,
    "data.flip": False,
    "attack.eps": 0.2,
    "attack.grid": {"eps": (0.1, 0.2, 0.3), "num_steps": (1.0, 2.0, 3.0), "step_size": (0.05, 0.1)},
    "attack.num_steps": 2,
    "attack.step_size": 0.1,
    "reward.ref_eps": 0.2,
    "reward.ref_num_steps": 2,
    "reward.ref_step_size": 0.1,
    "policy.lr": 0.05,
    "optim.lr": 0.05,
    "optim.schedule": "cosine",
    "evaluation.eps": 0.2,
    "evaluation.step_size": 0.05,
    "evaluation.val_num_steps": 2,
    "evaluation.test_num_steps": (2, 3),
}


def small_config(**changes: Any) -> TrainConfig:
    """A run of a second: 115 digits, 2 epochs of 3 rounds. Names with ``__`` for dots."""
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return changed(TrainConfig(), {**SMALL, **dotted})


def make_images(
    count: int, shape: tuple[int, int, int] = (1, 8, 8), classes: int = 4, seed: int = 0
) -> Images:
    """Random uint8 images with labels that have nothing to do with them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    return Images(x, torch.arange(count) % classes)


def make_batch(x: Tensor, y: Tensor, index: Tensor | None = None) -> Batch:
    return Batch(x=x, y=y, index=torch.arange(len(x)) if index is None else index, global_size=len(x))


def attacked(batch: Batch, x_adv: Tensor, strategy: Strategy, **more: Any) -> AttackedBatch:
    """What a round hands on; ``more``: its round and the attack's stats."""
    return AttackedBatch(batch=batch, x_adv=x_adv, strategy=strategy, **more)


def make_game(config: TrainConfig, images: Images | None = None, **kwargs: Any) -> AttackStrategyVectorEnv:
    """The trainer's env on 48 random images of 4 classes, one worker, CPU."""
    images = images or make_images(48)
    return build_game(config, images, 4, group=ProcessGroup(), device=CPU, **kwargs)


def make_context(
    config: TrainConfig, space: StrategySpace, group: ProcessGroup | None = None
) -> LearnerContext:
    return LearnerContext(
        space=space,
        image_shape=(1, 8, 8),
        config=config,
        group=group or ProcessGroup(),
        device=CPU,
        step_costs=relative_costs(config, grid_of(config)["num_steps"]),
    )


def seeded_learner(config: TrainConfig, space: StrategySpace, seed: int = 0) -> Learner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_learner(make_context(config, space))


def strategy_of(eps: Tensor, num_steps: Tensor, step_size: Tensor, **more: Tensor) -> Strategy:
    return Strategy(eps=eps, num_steps=num_steps, step_size=step_size, **more)


def plain_pgd(
    net: nn.Module, x: Tensor, y: Tensor, delta: Tensor, eps: float, step: float, num_steps: int
) -> Tensor:
    """PGD on cross-entropy for one image [C,H,W] as a textbook writes it, from a given start."""
    for _ in range(num_steps):
        delta = delta.detach().requires_grad_(True)
        loss = nn.functional.cross_entropy(net((x + delta)[None]), y[None])
        (grad,) = torch.autograd.grad(loss, delta)
        delta = torch.clamp(delta + step * grad.sign(), -eps, eps)
        delta = torch.clamp(x + delta, 0, 1) - x
    return (x + delta).detach()


def inputs_of(
    y: Tensor, strategy: Strategy, config: LossConfig | None = None, **logits: Tensor
) -> MethodInputs:
    """What a method's loss reads, from logits by name."""
    return MethodInputs(logits=Logits(**logits), y=y, strategy=strategy, config=config or LossConfig())


class GivenStream:
    """Stands in for a Stream: hands out stored numbers, so that golden vectors can be replayed."""

    def __init__(self, values: Tensor):
        self.values = values

    def uniform(self, index: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return self.values[index].clone()

    normal = uniform


class Counted(nn.Module):
    """Counts the images that pass through ``net``: forward, and backward with and without weights."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.forwards = self.input_backwards = self.weight_backwards = 0

    @property
    def cost(self) -> int:
        """In forward passes of one image: a backward pass costs one, with weight gradients two."""
        return self.forwards + self.input_backwards + 2 * self.weight_backwards

    def forward(self, x: Tensor) -> Any:
        self.forwards += len(x)
        out = self.net(x)
        logits = out[0] if isinstance(out, list) else out
        if logits.requires_grad:
            kind = "weight" if next(self.net.parameters()).requires_grad else "input"
            logits.register_hook(lambda grad, kind=kind: self._count(kind, len(grad)))
        return out

    def _count(self, kind: str, images: int) -> None:
        name = f"{kind}_backwards"
        setattr(self, name, getattr(self, name) + images)
