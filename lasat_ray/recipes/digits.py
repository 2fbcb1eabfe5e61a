"""``digits`` and the default, ``digits-rate``: small enough for a laptop, and free of downloads."""

from __future__ import annotations

from dataclasses import replace

from lasat_ray.config import (
    AttackConfig,
    DataConfig,
    EvalConfig,
    OptimConfig,
    PolicyConfig,
    RewardConfig,
    TrainConfig,
)
from lasat_ray.recipes.rate import STEPS, rated
from lasat_ray.recipes.recipe import Recipe

GRID = {
    "eps": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    "num_steps": tuple(float(n) for n in range(3, 15)),
    "step_size": (0.02, 0.04, 0.06, 0.08, 0.1),
}


def digits() -> Recipe:
    """LAS-AT on scikit-learn's 1x8x8 digits: 16 gray levels, hence the large budgets."""
    config = TrainConfig(
        recipe="digits",
        dataset="digits",
        model="small_cnn",
        strategy_model="small_cnn",
        learner="ppo",  # it, the credit and the weight of L1: what docs/strategy_learning.md measured
        update_interval=4,
        epochs=20,
        batch_size=128,
        data=DataConfig(val_fraction=0.1, crop_padding=0, flip=False),
        attack=AttackConfig(eps=0.2, num_steps=10, step_size=0.05, grid=GRID),
        reward=RewardConfig(
            credit="influence",
            standardize=True,
            l1_weight=0.3,
            ref_eps=0.2,
            ref_num_steps=10,
            ref_step_size=0.05,
        ),
        policy=PolicyConfig(optimizer="adam", lr=1e-4, entropy_weight=0.01),
        optim=OptimConfig(lr=0.1, schedule="cosine"),
        evaluation=EvalConfig(eps=0.2, step_size=0.05),
    )
    return Recipe(name="digits", config=config, summary="LAS-AT on 8x8 digits; minutes on a laptop")


def digits_rate() -> Recipe:
    """The rate objective on the same data and net, for four times the epochs and fewer passes than ``digits``
    has: its attacks are shorter. Validation, a third of an epoch's passes, comes every fourth. The grid's eps
    is above the evaluation's, which pays with short attacks and not with long ones
    (docs/strategy_learning.md)."""
    grid = {"eps": (0.25,), "num_steps": STEPS, "step_size": (0.1, 0.15, 0.2, 0.25)}
    own = digits().config
    own = replace(own, strategy_model="tiny_cnn", epochs=80, evaluation=replace(own.evaluation, every=4))
    return Recipe(
        name="digits-rate",
        config=rated(own, grid, name="digits-rate"),
        summary="LAS-AT on 8x8 digits, paid by gain per pass; the default, a minute or two on a laptop",
    )
