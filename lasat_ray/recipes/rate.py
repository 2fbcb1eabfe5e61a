"""``NAME-rate``: the most robustness per pass, and held-out images judge what an attack was worth.

Each sibling keeps its recipe's data, net, method, schedule and reference attack. What differs is what the
strategy net is paid for (its gain on held-out images less the price of the attack), how it learns, and a
grid that begins at one step: where an attack's length has a price, there have to be short ones to choose.
They are given a larger eps than the reference attack, since few steps do not use all of it; and robust
loss weighs four times as much as clean loss: twice as much ended below PGD-AT in robust accuracy
(docs/strategy_learning.md).
"""

from __future__ import annotations

from dataclasses import replace

from lasat_ray.config import PolicyConfig, TrainConfig
from lasat_ray.config.units import Grid
from lasat_ray.recipes.recipe import Recipe

STEPS = (1.0, 2.0, 3.0, 5.0, 10.0)


def rated(config: TrainConfig, grid: Grid, *, name: str, alpha: float = 1.0) -> TrainConfig:
    """``config`` with the rate objective, PPO, and attacks chosen from ``grid``; fields of the strategy
    that belong to the method (``trades_beta``) keep their values."""
    own = {field: values for field, values in config.attack.grid.items() if field not in _ATTACK}
    reward = replace(
        config.reward,
        objective="rate",
        outcome="heldout",
        credit="influence",
        standardize=True,
        l1_weight=0.0,
        alpha=alpha,
    )
    return replace(
        config,
        recipe=name,
        learner="ppo",
        update_interval=20,
        attack=replace(config.attack, grid={**grid, **own}),
        reward=reward,
        policy=PolicyConfig(optimizer="adam", lr=2e-3, entropy_weight=0.01, initial_price=2.0),
    )


_ATTACK = ("eps", "num_steps", "step_size")


def rated_at_own_eps(config: TrainConfig, *, name: str) -> TrainConfig:
    """``config`` with the rate objective, and attacks whose sizes are shares of its own eps."""
    eps = config.attack.eps
    sizes = tuple(eps * share for share in (0.625, 0.875, 1.125, 1.5))
    return rated(config, {"eps": (eps * 1.5,), "num_steps": STEPS, "step_size": sizes}, name=name, alpha=4.0)


def rate_sibling(recipe: Recipe) -> Recipe:
    """``recipe``, whose strategy is learned, with the rate objective at its own eps; no published numbers."""
    name = f"{recipe.name}-rate"
    return Recipe(
        name=name,
        config=rated_at_own_eps(recipe.config, name=name),
        summary=f"{recipe.name} with the rate objective",
        needs=recipe.needs,
    )
