"""The rows of Tables 1 to 4 and GTSRB that PGD-AT, TRADES and the two LAS variants around them fill;
``rows.py`` has all others.

Settings are the paper's where it speaks, else the published code's: grids, schedules, smoothing
and the policy's optimizer are from the code's README, k = 40 and the reward per image without a
baseline from the paper. Neither states alpha and beta beyond doubt, the nets of the GTSRB table,
or its augmentation: alpha = beta = 1, ResNet-18, and no flips (a flipped sign is another sign).
PGD-AT rows share the schedule of LAS-AT; TRADES rows are TRADES' own script. Scripts count epochs
from 1, milestones here from 0: a drop in epoch 75 is the milestone 74.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from lasat_ray.config import (
    AttackConfig,
    DataConfig,
    EvalConfig,
    LossConfig,
    OptimConfig,
    PolicyConfig,
    SpeedConfig,
    TrainConfig,
)
from lasat_ray.recipes.recipe import Recipe
from lasat_ray.units import parse_grid

LAS_AT_GRID = parse_grid("eps=3..15/255 num_steps=3..14 step_size=1..5/255")
LAS_TRADES_GRID = parse_grid("eps=5..9/255 num_steps=7..14 step_size=2..4/255 trades_beta=5..9")
PLAIN = PolicyConfig(lr=1e-4, grad_clip=1.0, baseline="none")
MOMENTUM = replace(PLAIN, momentum=0.9, weight_decay=5e-4)
BEST_K = 40  # the paper's choice in Table 1; the published code has 20, 1 or 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One table: its data and net, what a column is called, and what differs between tables.

    ``kept``: share of the label on the true class in LAS-AT (the code's factor).
    """

    slug: str
    table: str
    dataset: str
    model: str
    columns: tuple[str, ...]
    kept: float = 0.7
    grad_clip: float = 0.0
    data: DataConfig = field(default_factory=DataConfig)
    las_at_policy: PolicyConfig = PLAIN
    las_trades_policy: PolicyConfig = MOMENTUM
    awp_warmup: int = 0


FULL = ("clean", "pgd10", "pgd20", "pgd50", "cw", "aa")
SHORT = ("clean", "pgd50", "cw", "aa")
TABLE_1 = Setting(
    slug="table1-cifar10-resnet18",
    table="Table 1",
    dataset="cifar10",
    model="resnet18",
    columns=("clean", "pgd10", "time_min"),
)
TABLE_2 = Setting(
    slug="table2-cifar10-wrn34-10", table="Table 2", dataset="cifar10", model="wrn-34-10", columns=FULL
)
TABLE_3 = Setting(
    slug="table3-cifar100-wrn34-10",
    table="Table 3",
    dataset="cifar100",
    model="wrn-34-10",
    columns=FULL,
    kept=0.6,
    las_at_policy=MOMENTUM,
)
TABLE_4 = Setting(
    slug="table4-tiny-imagenet-preactresnet18",
    table="Table 4",
    dataset="tiny-imagenet",
    model="preact_resnet18",
    columns=SHORT,
    kept=0.8,
    grad_clip=10.0,
    las_trades_policy=PLAIN,
    awp_warmup=10,
)
GTSRB = Setting(
    slug="gtsrb",
    table="GTSRB",
    dataset="gtsrb",
    model="resnet18",
    columns=SHORT,
    data=DataConfig(flip=False),
)


def published() -> list[Recipe]:
    """Every row, in the order of the tables."""
    ks = {1: (82.88, 53.71, 1378), 10: (82.38, 53.89, 432), 20: (82.0, 53.53, 418)}
    ks |= {40: (82.3, 54.29, 365), 60: (82.1, 53.85, 333)}
    return [
        pgd_at(TABLE_1, 82.56, 53.15, 261),
        *(las_at(TABLE_1, *numbers, k=k, suffix=f"-k{k}") for k, numbers in ks.items()),
        pgd_at(TABLE_2, 85.17, 56.07, 55.08, 54.88, 53.91, 51.69),
        trades(TABLE_2, 85.72, 56.75, 56.1, 55.9, 53.87, 53.40),
        las_at(TABLE_2, 86.23, 57.64, 56.49, 56.12, 55.73, 53.58),
        las_trades(TABLE_2, 85.24, 58.01, 57.07, 56.8, 55.45, 54.15),
        pgd_at(TABLE_3, 60.89, 32.19, 31.69, 31.45, 30.1, 27.86),
        trades(TABLE_3, 58.61, 29.20, 28.66, 28.56, 27.05, 25.94),
        las_at(TABLE_3, 61.80, 33.45, 32.77, 32.54, 31.12, 29.03),
        las_trades(TABLE_3, 60.62, 32.99, 32.53, 32.39, 29.51, 28.12),
        pgd_at(TABLE_4, 43.98, 19.98, 17.6, 13.78),
        trades(TABLE_4, 39.16, 15.74, 12.92, 12.32),
        las_at(TABLE_4, 44.86, 22.16, 18.54, 16.74),
        las_trades(TABLE_4, 41.38, 18.36, 14.5, 14.08),
        clean(GTSRB, 98.22, 12.63, 13.28, 9.77),
        pgd_at(GTSRB, 90.34, 59.02, 60.04, 57.54),
        trades(GTSRB, 87.35, 61.95, 61.40, 59.99),
        las_at(GTSRB, 91.98, 64.33, 64.06, 62.07),
        las_trades(GTSRB, 88.67, 63.26, 62.40, 61.09),
    ]


def clean(setting: Setting, *numbers: float) -> Recipe:
    """Training without an attack."""
    config = replace(pgd_at_config(setting), method="clean")
    return recipe(setting, "clean", "Clean", config, numbers)


def pgd_at(setting: Setting, *numbers: float) -> Recipe:
    """PGD-10 adversarial training with the fixed attack 8/255, step 2/255."""
    return recipe(setting, "pgd-at", "PGD-AT", pgd_at_config(setting), numbers)


def trades(setting: Setting, *numbers: float) -> Recipe:
    """TRADES as its authors' script runs it."""
    config = replace(
        base(setting),
        method="trades",
        strategy="fixed",
        epochs=76,
        attack=AttackConfig(eps=0.031, num_steps=10, step_size=0.007),
        loss=LossConfig(trades_beta=6.0),
        optim=drops(setting, 74.0, weight_decay=2e-4),
    )
    return recipe(setting, "trades", "TRADES", config, numbers, follows="code")


def las_at(setting: Setting, *numbers: float, k: int = BEST_K, suffix: str = "") -> Recipe:
    """LAS-AT: label-smoothed cross-entropy, attacks chosen by a strategy net every image."""
    config = replace(
        pgd_at_config(setting),
        strategy="learned",
        update_interval=k,
        attack=AttackConfig(grid=LAS_AT_GRID),
        loss=LossConfig(label_smoothing=round(1 - setting.kept, 6)),
        policy=setting.las_at_policy,
    )
    row = f"LAS-AT (k={k})" if suffix else "LAS-AT"
    return recipe(setting, f"las-at{suffix}", row, config, numbers, follows="paper")


def las_trades(setting: Setting, *numbers: float) -> Recipe:
    """LAS-AT around TRADES, whose beta becomes one more field of the strategy."""
    config = replace(
        base(setting),
        method="trades",
        update_interval=BEST_K,
        epochs=100,
        attack=AttackConfig(grid=LAS_TRADES_GRID),
        optim=drops(setting, 75.0, 90.0),
        policy=setting.las_trades_policy,
    )
    return recipe(setting, "las-trades", "LAS-TRADES", config, numbers, follows="paper")


def base(setting: Setting) -> TrainConfig:
    steps = tuple(int(name[3:]) for name in setting.columns if name.startswith("pgd"))
    return TrainConfig(
        dataset=setting.dataset,
        model=setting.model,
        strategy_model="resnet18",
        batch_size=128,
        data=setting.data,
        policy=PLAIN,
        speed=SpeedConfig(channels_last=True),
        evaluation=EvalConfig(eps=8 / 255, step_size=2 / 255, test_num_steps=steps),
    )


def pgd_at_config(setting: Setting) -> TrainConfig:
    attack = AttackConfig(eps=8 / 255, num_steps=10, step_size=2 / 255)
    optim = drops(setting, 99.0, 104.0)
    return replace(base(setting), strategy="fixed", epochs=110, attack=attack, optim=optim)


def drops(
    setting: Setting, *milestones: float, weight_decay: float = 5e-4, factors: tuple[float, ...] = (0.1,)
) -> OptimConfig:
    """SGD at 0.1 with momentum; after each milestone a tenth of the rate, or its own factor."""
    return OptimConfig(
        lr=0.1,
        momentum=0.9,
        weight_decay=weight_decay,
        schedule="multistep",
        milestones=milestones,
        lr_decay=factors,
        grad_clip=setting.grad_clip,
    )


def recipe(
    setting: Setting,
    slug: str,
    row: str,
    config: TrainConfig,
    numbers: tuple[float, ...],
    follows: Literal["paper", "code", ""] = "",
) -> Recipe:
    name = f"{setting.slug}-{slug}"
    return Recipe(
        name=name,
        config=replace(config, recipe=name),
        summary=f"{row} on {setting.dataset}, {setting.model}",
        table=setting.table,
        row=row,
        reported=dict(zip(setting.columns, map(float, numbers), strict=True)),
        follows=follows,
    )
