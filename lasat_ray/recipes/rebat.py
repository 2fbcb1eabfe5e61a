"""ReBAT (Wang et al., NeurIPS 2023) by the three commands of its authors' page (PKU-ML/ReBAT), on CIFAR-10.

No figures: neither page nor code states them, and the paper's tables could not be read with certainty. What
differs from the script beside what differs in all recipes of recent.py: it computes in half precision; the
average that is evaluated lags from the first epoch on, where the loss's own begins with ReBAT; CutMix draws a
share for each image, not one for a batch.
"""

from __future__ import annotations

from dataclasses import replace

from lasat_ray.config import AttackConfig, DataConfig, LossConfig, OptimConfig
from lasat_ray.recipes.paper import PGD_10, TABLE_1, TABLE_2, Setting, base
from lasat_ray.recipes.recipe import Recipe

DATA = DataConfig(pad_mode="reflect")


def rebat_recipes() -> list[Recipe]:
    """ReBAT, ReBAT++, whose attacks grow as the rate falls, and ReBAT with CutMix on a wide net."""
    small = replace(TABLE_1, model="preact_resnet18")
    stronger = AttackConfig(
        eps=8 / 255,
        num_steps=10,
        step_size=2 / 255,
        grid={"eps": (8 / 255, 10 / 255), "num_steps": (10.0, 12.0)},  # from epoch 100 of 200 on
    )
    return [
        _recipe("rebat-cifar10-preactresnet18", small, "ReBAT", 1.5),
        _recipe("rebat-plus-cifar10-preactresnet18", small, "ReBAT++", 1.7, attack=stronger),
        _recipe(
            "rebat-cutmix-cifar10-wrn34-10",
            TABLE_2,
            "ReBAT with CutMix",
            4.0,
            weight=2.0,
            data=replace(DATA, cutmix=True),
        ),
    ]


def _recipe(
    name: str,
    setting: Setting,
    what: str,
    divisor: float,
    *,
    weight: float = 1.0,
    attack: AttackConfig = PGD_10,
    data: DataConfig = DATA,
) -> Recipe:
    """``divisor`` of the learning rate at epochs 100 and 150; ``weight`` of the distance from the average."""
    config = replace(
        base(setting),
        recipe=name,
        method="rebat",
        strategy="curriculum" if attack.grid else "fixed",
        epochs=200,
        data=data,
        attack=attack,
        loss=LossConfig(rebat_weight=weight),
        optim=OptimConfig(
            lr=0.1, schedule="multistep", milestones=(100.0, 150.0), lr_decay=(1 / divisor,), ema_decay=0.999
        ),
    )
    return Recipe(
        name=name,
        config=replace(config, evaluation=replace(config.evaluation, test_num_steps=(10, 50))),
        summary=f"{what} (Wang et al. 2023) on cifar10, {setting.model}, averaged weights",
        follows="code",
    )
