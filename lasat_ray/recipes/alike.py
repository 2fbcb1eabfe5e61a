"""``NAME-like``: as much of a published training as settings here can say, after its authors' scripts.

What a recipe leaves out is not small: it is that paper's own idea. So none of them reports the paper's
figures; RobustBench's rows of the originals are told in the summaries. What differs from the authors'
scripts in all recipes (recent.py) differs here too, and AutoAugment comes after crop and flip.

DAJAT (Addepalli, Jain and Radhakrishnan, NeurIPS 2022; val-iisc/DAJAT) trains on each image plainly and
twice varied by AutoAugment, in BatchNorms of their own, and pulls the three predictions together
(Jensen-Shannon). Left out: the plain image, the separate BatchNorms, the divergence. Its number of
attack steps is set by four conditions of which the last one always holds: 5 steps of half the budget.

OA-AT (Addepalli et al., ECCV 2022; val-iisc/OAAT) trains up to eps 16/255. Left out: that from 12/255 on
attacks are by turns held back by a perceptual distance, and longer than the budget, cut, and compared with
a mixed prediction; that optimizer momenta begin anew there; that weights are perturbed by twice the attack.
"""

from __future__ import annotations

from dataclasses import replace

from lasat_ray.config import AttackConfig, DataConfig, LossConfig, OptimConfig, RewardConfig, TrainConfig
from lasat_ray.recipes.paper import TABLE_1, TABLE_2, Setting, base
from lasat_ray.recipes.recipe import Recipe

AWP = LossConfig(awp_gamma=0.005, awp_warmup=9)
AUTOAUGMENT = DataConfig(policy="autoaugment")


def alike_recipes() -> list[Recipe]:
    """DAJAT-like and OA-AT-like, each with its two nets on CIFAR-10."""
    return [
        _dajat(TABLE_1, "resnet18", 11.0, "85.71 %, AutoAttack 52.48 %"),
        _dajat(TABLE_2, "wrn34-10", 10.0, "88.71 %, AutoAttack 57.81 %"),
        _oaat(TABLE_1, "resnet18", 110, 1.5, 5e-4, DataConfig(), "80.24 %, AutoAttack 51.06 %"),
        _oaat(TABLE_2, "wrn34-10", 200, 2.0, 3e-4, AUTOAUGMENT, "85.32 %, AutoAttack 58.04 %"),
    ]


def _optim(weight_decay: float) -> OptimConfig:
    """Both scripts evaluate an average whose decay is 0.9996, begun at three quarters of the run."""
    return OptimConfig(lr=0.2, schedule="cosine", weight_decay=weight_decay, ema_decay=0.9996)


def _dajat(setting: Setting, net: str, beta: float, original: str) -> Recipe:
    """Budgets grow to 8/255 from epoch to epoch, over 200."""
    sizes = tuple(8 / 255 * (epoch + 1) / 200 for epoch in range(200))
    config = replace(
        base(setting),
        method="trades",
        strategy="curriculum",
        epochs=200,
        data=AUTOAUGMENT,
        attack=AttackConfig(
            eps=8 / 255,
            num_steps=5,
            step_size=4 / 255,
            grid={"eps": sizes, "step_size": tuple(size / 2 for size in sizes)},
        ),
        loss=replace(AWP, trades_beta=beta),
        optim=_optim(5e-4),
    )
    return _recipe(f"dajat-like-cifar10-{net}", config, f"without its joint training; DAJAT: {original}")


def _oaat(
    setting: Setting, net: str, epochs: int, beta: float, weight_decay: float, data: DataConfig, original: str
) -> Recipe:
    """A quarter of the run at 4/255, then budgets that grow with the epochs to 16/255, and more steps; in
    the last quarter beta goes to 3."""
    quarter, last = epochs // 4, 3 * epochs // 4
    numbers = range(1, epochs + 1)
    sizes = tuple(4 / 255 if number <= quarter else 16 / 255 * number / epochs for number in numbers)
    steps = tuple(5.0 if number <= quarter else 10.0 for number in numbers)
    grid = {
        "eps": sizes,
        "num_steps": steps,
        "step_size": tuple(size / (2 if few == 5 else 4) for size, few in zip(sizes, steps, strict=True)),
        "trades_beta": tuple(
            beta + (3.0 - beta) * max(number - last, 0) / (epochs - last) for number in numbers
        ),
    }
    config = replace(
        base(setting),
        method="trades",
        strategy="curriculum",
        epochs=epochs,
        data=data,
        attack=AttackConfig(
            eps=16 / 255,
            num_steps=10,
            step_size=4 / 255,
            loss="ce",
            start="uniform",
            start_radius=4 / 255,
            grid=grid,
        ),
        loss=replace(AWP, trades_beta=beta),
        reward=RewardConfig(ref_eps=16 / 255, ref_step_size=4 / 255),
        optim=_optim(weight_decay),
    )
    return _recipe(f"oaat-like-cifar10-{net}", config, f"without its oracle; OA-AT at 8/255: {original}")


def _recipe(name: str, config: TrainConfig, told: str) -> Recipe:
    config = replace(config, recipe=name)
    config = replace(config, evaluation=replace(config.evaluation, test_num_steps=(10, 50)))
    return Recipe(
        name=name,
        config=config,
        summary=f"{name.split('-cifar10')[0]} training of {config.model} on cifar10, {told}",
        follows="code",
    )
