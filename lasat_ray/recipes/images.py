"""``images``: folders and files of one's own, without caps; net, batch and epochs by what lies there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from lasat_ray.config import AttackConfig, DataConfig, OptimConfig, PolicyConfig, TrainConfig
from lasat_ray.recipes.paper import LAS_AT_GRID
from lasat_ray.recipes.rate import rated_at_own_eps
from lasat_ray.recipes.recipe import Recipe

ROUNDS = 1500
"""Batches that a net of random weights is trained for, at least, under attacks of about ten steps; small sets
are walked through more often."""
SHORTER = 3
"""How many rounds of the rate objective cost about as much as one of those (docs/strategy_learning.md)."""


def images() -> Recipe:
    """The field's budgets of 8/255 and the rate objective, for about as many passes as LAS-AT takes."""
    config = rated_at_own_eps(images_las_at().config, name="images")
    return Recipe(
        name="images",
        config=replace(config, epochs=SHORTER * config.epochs),
        summary="the learned strategy on images of your own; sizes go by their number and size",
    )


def images_las_at() -> Recipe:
    """The same with the published grid and the paper's reward."""
    config = TrainConfig(
        recipe="images-las-at",
        dataset="imagefolder:images",
        model="resnet18-8",
        strategy_model="small_cnn",
        update_interval=4,
        epochs=30,
        batch_size=64,
        data=DataConfig(val_fraction=0.1),
        attack=AttackConfig(grid=LAS_AT_GRID),
        policy=PolicyConfig(optimizer="adam", lr=3e-4, entropy_weight=0.01),
        optim=OptimConfig(lr=0.1, schedule="one-cycle", nesterov=True),
    )
    return Recipe(
        name="images-las-at",
        config=config,
        summary="LAS-AT as published on images of your own; sizes go by their number and size",
    )


def is_fitted(name: str) -> bool:
    """Whether the recipe of that name takes its sizes from the images that are there."""
    return name.removesuffix("-rate") in ("images", "images-las-at")


def fitted(
    config: TrainConfig, count: int, image_shape: tuple[int, int, int], given: Collection[str]
) -> TrainConfig:
    """The recipe for ``count`` training images of (C,H,W); options in ``given`` (``--model``, ...) stay."""
    side = max(image_shape[1:])
    batch = next((size for size in (128, 64, 32) if count >= 20 * size), 16)
    batch = config.batch_size if "--batch-size" in given else min(batch, max(2, count // 2))
    training = round(count * (1 - config.data.val_fraction))
    rounds = max(1, training // batch)
    chooses = config.strategy in ("learned", "class-wise")
    times = SHORTER if chooses and config.reward.objective == "rate" else 1
    chosen: dict[str, Any] = {
        "--model": _model(side, count),
        "--batch-size": batch,
        "--epochs": times * min(60, max(20, -(-ROUNDS // rounds))),
    }
    fields = {option[2:].replace("-", "_"): value for option, value in chosen.items() if option not in given}
    if "--data.crop-padding" not in given:
        fields["data"] = replace(config.data, crop_padding=side // 8)
    if "--reward.outcome-images" not in given:  # few images cannot spare as many
        held_out = min(config.reward.outcome_images, max(1, training // 4))
        fields["reward"] = replace(config.reward, outcome_images=held_out)
    return replace(config, **fields)


def fitted_as(config: TrainConfig, run: TrainConfig, given: Collection[str]) -> TrainConfig:
    """The recipe with the sizes that a run of it was given, for the same command once more."""
    fields = {name: getattr(run, name) for name in ("model", "batch_size", "epochs")}
    fields = {name: value for name, value in fields.items() if f"--{name.replace('_', '-')}" not in given}
    if "--data.crop-padding" not in given:
        fields["data"] = replace(config.data, crop_padding=run.data.crop_padding)
    if "--reward.outcome-images" not in given:
        fields["reward"] = replace(config.reward, outcome_images=run.reward.outcome_images)
    return replace(config, **fields)


def _model(side: int, count: int) -> str:
    """A wider net for more images, and one that halves large images twice before it looks at them."""
    if side <= 12:
        return "small_cnn"
    if side > 96:
        return "torchvision:resnet18"
    return "resnet18-8" if count < 5_000 else "resnet18-16" if count < 20_000 else "resnet18"
