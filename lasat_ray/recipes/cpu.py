"""``cifar10-cpu``: CIFAR-10-sized images with a net and a subset that two processor cores manage."""

from __future__ import annotations

from lasat_ray.config import (
    AttackConfig,
    DataConfig,
    OptimConfig,
    RewardConfig,
    TrainConfig,
)
from lasat_ray.recipes.published import LAS_AT_GRID
from lasat_ray.recipes.recipe import Recipe


def cifar10_cpu() -> Recipe:
    """A ResNet-18 of an eighth the width on 4,000 images; the published grid and budgets."""
    config = TrainConfig(
        recipe="cifar10-cpu",
        dataset="cifar10",
        model="resnet18-8",
        strategy_model="small_cnn",
        update_interval=10,
        epochs=8,
        batch_size=64,
        data=DataConfig(max_train=4500, max_test=1000, val_fraction=1 / 9),
        attack=AttackConfig(grid=LAS_AT_GRID),
        reward=RewardConfig(standardize=True),
        optim=OptimConfig(lr=0.1, schedule="one-cycle", nesterov=True),
    )
    return Recipe(
        name="cifar10-cpu", config=config, summary="LAS-AT on 4,000 CIFAR-10 images; an hour on two cores"
    )
