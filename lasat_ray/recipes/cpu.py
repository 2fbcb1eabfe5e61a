"""``cifar10-cpu``: CIFAR-10-sized images with a net and a subset that two processor cores manage."""

from __future__ import annotations

from lasat_ray.config import (
    AttackConfig,
    DataConfig,
    OptimConfig,
    PolicyConfig,
    TrainConfig,
)
from lasat_ray.recipes.paper import LAS_AT_GRID
from lasat_ray.recipes.recipe import Recipe


def cifar10_cpu() -> Recipe:
    """A ResNet-18 of an eighth the width on 2,000 images; the published grid and budgets."""
    config = TrainConfig(
        recipe="cifar10-cpu",
        dataset="cifar10",
        model="resnet18-8",
        strategy_model="small_cnn",
        update_interval=4,
        epochs=8,
        batch_size=64,
        data=DataConfig(max_train=2250, max_test=500, val_fraction=1 / 9),
        attack=AttackConfig(grid=LAS_AT_GRID),
        # The paper's reward, image by image; its learning rate of 1e-4 would not move in 60 updates.
        policy=PolicyConfig(optimizer="adam", lr=3e-4, entropy_weight=0.01),
        optim=OptimConfig(lr=0.1, schedule="one-cycle", nesterov=True),
    )
    return Recipe(
        name="cifar10-cpu", config=config, summary="LAS-AT on 2,000 CIFAR-10 images; minutes on two cores"
    )
