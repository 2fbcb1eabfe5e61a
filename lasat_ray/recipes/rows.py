"""The other published rows: rival methods by their authors' settings, LAS-AWP, the ablations.

Rivals follow the defaults of their own scripts; epochs there count from 1, milestones here from 0.
Table 7 states no settings; its rows follow the tables before it. Rows that only leaderboards have
are in ``leaderboards.py``.
"""

from __future__ import annotations

from dataclasses import replace

from lasat_ray.config import AttackConfig, LossConfig, OptimConfig, TrainConfig
from lasat_ray.recipes.published import (
    BEST_K,
    FULL,
    GTSRB,
    LAS_AT_GRID,
    PLAIN,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    Setting,
    base,
    drops,
    pgd_at_config,
    recipe,
)
from lasat_ray.recipes.recipe import Recipe
from lasat_ray.units import parse_grid

LAS_AWP_GRID = parse_grid("eps=7..15/255 num_steps=8..16 step_size=2..5/255")
TRADES_ATTACK = AttackConfig(eps=0.031, num_steps=10, step_size=0.007)
PAIR = ("clean", "aa")
TABLE_5_CIFAR10 = Setting(
    slug="table5-cifar10-wrn70-16", table="Table 5", dataset="cifar10", model="wrn-70-16", columns=PAIR
)
TABLE_5_CIFAR100 = Setting(
    slug="table5-cifar100-wrn34-20",
    table="Table 5",
    dataset="cifar100",
    model="wrn-34-20",
    columns=PAIR,
    las_at_policy=TABLE_3.las_at_policy,
)
TABLE_6 = replace(TABLE_1, slug="table6-cifar10-resnet18", table="Table 6", columns=("clean", "pgd10", "aa"))
TABLE_7 = replace(
    TABLE_2, slug="table7-cifar10-wrn34-10", table="Table 7", columns=("clean", "fgsm", "pgd20", "cw")
)
ABLATION = replace(TABLE_1, slug="ablation-cifar10-resnet18", table="AWP ablation", columns=FULL)


def other_rows() -> list[Recipe]:
    """Table after table."""
    return [
        *_table_2(),
        *_tables_3_to_5(),
        *_table_6(),
        *_table_7(),
        *_gtsrb_and_ablation(),
    ]


def _table_2() -> list[Recipe]:
    return [
        mart(TABLE_2, 84.17, 58.98, 58.56, 58.06, 54.58, 51.10),
        fat(TABLE_2, 87.97, 50.31, 49.86, 48.79, 48.65, 47.48),
        gairat(TABLE_2, 86.30, 60.64, 59.54, 58.74, 45.57, 40.30),
        awp(TABLE_2, 85.57, 58.92, 58.13, 57.92, 56.03, 53.90),
        lbgat(TABLE_2, 88.22, 56.25, 54.66, 54.3, 54.29, 52.23, trades_beta=0.0),
        las_awp(TABLE_2, 87.74, 61.09, 60.16, 59.79, 58.22, 55.52),
    ]


def _tables_3_to_5() -> list[Recipe]:
    return [
        sat(TABLE_3, 62.82, 28.1, 27.17, 26.76, 27.32, 24.57),
        awp(TABLE_3, 60.38, 34.13, 33.86, 33.65, 31.12, 28.86),
        lbgat(TABLE_3, 60.64, 35.13, 34.75, 34.62, 30.65, 29.33),
        las_awp(TABLE_3, 64.89, 37.11, 36.36, 36.13, 33.92, 30.77),
        awp(TABLE_4, 41.48, 22.51, 19.02, 17.34),
        las_awp(TABLE_4, 45.26, 23.42, 19.88, 18.42),
        gowal(TABLE_5_CIFAR10, 85.29, 57.20),
        las_awp(TABLE_5_CIFAR10, 85.66, 57.86),
        lbgat(TABLE_5_CIFAR100, 62.55, 30.20),
        las_awp(TABLE_5_CIFAR100, 67.31, 31.92),
    ]


def _table_6() -> list[Recipe]:
    return [
        reward_ablation("l1", 0.0, 0.0, 81.83, 53.88, 49.06),
        reward_ablation("l1-l2", 1.0, 0.0, 81.54, 53.98, 49.34),
        reward_ablation("l1-l3", 0.0, 1.0, 81.90, 53.89, 49.20),
        reward_ablation("l1-l2-l3", 1.0, 1.0, 82.3, 54.29, 49.89),
    ]


def _table_7() -> list[Recipe]:
    return [
        madry(TABLE_7, 87.3, 56.1, 45.8, 46.8),
        cat(TABLE_7, 77.43, 57.17, 46.06, 42.28),
        dart(TABLE_7, 85.03, 63.53, 48.70, 47.27),
        fat(TABLE_7, 87.97, 65.94, 49.86, 48.65),
        las_madry(TABLE_7, 84.95, 67.16, 55.61, 54.31),
    ]


def _gtsrb_and_ablation() -> list[Recipe]:
    return [
        awp(GTSRB, 91.82, 64.94, 64.69, 62.24),
        las_awp(GTSRB, 93.17, 67.03, 67.77, 65.21),
        awp(ABLATION, 80.72, 55.33, 54.78, 54.28, 51.67, 49.44, num_steps=10, eps_255=8),
        awp(ABLATION, 66.73, 52.24, 52.14, 52.06, 48.1, 47.03, num_steps=10, eps_255=15),
        awp(ABLATION, 80.13, 55.82, 55.24, 55.13, 51.53, 49.62, num_steps=15, eps_255=8),
        las_awp(ABLATION, 83.03, 56.45, 55.76, 55.43, 53.06, 50.77),
    ]


def _rival(
    setting: Setting,
    method: str,
    epochs: int,
    optim: OptimConfig,
    attack: AttackConfig = TRADES_ATTACK,
    loss: LossConfig | None = None,
) -> TrainConfig:
    """A method with its fixed attack."""
    plain = replace(base(setting), method=method, strategy="fixed", epochs=epochs)
    return replace(plain, optim=optim, attack=attack, loss=loss or LossConfig())


def mart_config(setting: Setting) -> TrainConfig:
    """MART as its authors' WideResNet script runs it."""
    return _rival(setting, "mart", 90, drops(setting, 74.0, 89.0, weight_decay=7e-4))


def mart(setting: Setting, *numbers: float) -> Recipe:
    return recipe(setting, "mart", "MART", mart_config(setting), numbers, follows="code")


def fat(setting: Setting, *numbers: float) -> Recipe:
    """FAT with cross-entropy, as FAT.py runs it."""
    config = _rival(setting, "fat", 120, _halved_late(setting))
    return recipe(setting, "fat", "FAT", config, numbers, follows="code")


def _halved_late(setting: Setting) -> OptimConfig:
    """The course that FAT and GAIRAT share: tenths in epochs 60 and 90, half in epoch 110."""
    return drops(setting, 59.0, 89.0, 109.0, weight_decay=2e-4, factors=(0.1, 0.1, 0.5))


def gairat(setting: Setting, *numbers: float) -> Recipe:
    """GAIRAT as GAIRAT.py runs it: Lambda -1 from epoch 60 on, tanh."""
    config = _rival(setting, "gairat", 120, _halved_late(setting))
    return recipe(setting, "gairat", "GAIRAT", config, numbers, follows="code")


def awp(setting: Setting, *numbers: float, num_steps: int = 10, eps_255: int = 8) -> Recipe:
    """AT-AWP, gamma 0.01; the ablation varies the training attack."""
    attack = AttackConfig(eps=eps_255 / 255, num_steps=num_steps, step_size=2 / 255)
    config = _rival(setting, "at-awp", 200, drops(setting, 100.0, 150.0), attack)
    ablated = setting is ABLATION
    slug = f"awp-steps{num_steps}-eps{eps_255}" if ablated else "awp"
    row = f"AWP (I_train={num_steps}, eps_train={eps_255})" if ablated else "AWP"
    return recipe(setting, slug, row, config, numbers, follows="code")


def las_awp_config(setting: Setting) -> TrainConfig:
    """LAS-AT around AT-AWP: plain cross-entropy at perturbed weights."""
    return replace(
        base(setting),
        method="at-awp",
        strategy="learned",
        update_interval=BEST_K,
        epochs=200,
        attack=AttackConfig(grid=LAS_AWP_GRID),
        loss=LossConfig(awp_gamma=0.01, awp_warmup=setting.awp_warmup),
        optim=drops(setting, 100.0, 150.0),
        policy=setting.las_at_policy,
    )


def las_awp(setting: Setting, *numbers: float) -> Recipe:
    return recipe(setting, "las-awp", "LAS-AWP", las_awp_config(setting), numbers, follows="paper")


def lbgat(setting: Setting, *numbers: float, trades_beta: float = 6.0) -> Recipe:
    """LBGAT with a ResNet-18 teacher; its shell script runs beta 0, its row on CIFAR-10."""
    # Its first epoch runs at 0.02, the others at 0.1 until the first drop.
    optim = drops(setting, 1.0, 75.0, 90.0, weight_decay=2e-4, factors=(5.0, 0.1, 0.1))
    loss, optim = LossConfig(trades_beta=trades_beta), replace(optim, lr=0.02)
    config = replace(_rival(setting, "lbgat", 100, optim, loss=loss), teacher_model="resnet18")
    return recipe(setting, "lbgat", "LBGAT", config, numbers, follows="code")


def sat(setting: Setting, *numbers: float) -> Recipe:
    """SAT on the schedule of PGD-AT; the difficulty grows over the first half."""
    config = replace(pgd_at_config(setting), method="sat")
    return recipe(setting, "sat", "SAT", config, numbers)


def gowal_config(setting: Setting) -> TrainConfig:
    """TRADES on the SiLU net with averaged weights, without extra data (Gowal et al. 2020)."""
    optim = OptimConfig(lr=0.2, nesterov=True, milestones=(400 / 3, 150.0), ema_decay=0.995)
    attack = AttackConfig(eps=8 / 255, num_steps=10, step_size=2 / 255)
    config = _rival(setting, "gowal", 200, optim, attack)
    return replace(config, batch_size=512, model=f"{setting.model}-silu")


def gowal(setting: Setting, *numbers: float) -> Recipe:
    return recipe(setting, "gowal", "Gowal et al.", gowal_config(setting), numbers, follows="paper")


def madry(setting: Setting, *numbers: float) -> Recipe:
    """Madry et al. 2018: 7 steps of 2/255; rates drop by ten after 40,000 and 60,000 updates."""
    attack = AttackConfig(eps=8 / 255, num_steps=7, step_size=2 / 255)
    config = _rival(setting, "madry", 200, drops(setting, 102.0, 153.0, weight_decay=2e-4), attack)
    return recipe(setting, "madry-at", "Madry-AT", config, numbers, follows="paper")


def las_madry(setting: Setting, *numbers: float) -> Recipe:
    """LAS-AT around Madry's training: the same schedule, strategies learned, no smoothing."""
    config = madry(setting, *numbers).config
    config = replace(config, strategy="learned", update_interval=BEST_K, policy=PLAIN)
    config = replace(config, attack=AttackConfig(grid=LAS_AT_GRID))
    return recipe(setting, "las-madry-at", "LAS-Madry-AT", config, numbers, follows="paper")


def cat(setting: Setting, *numbers: float) -> Recipe:
    """CAT up to 10 steps on the schedule of PGD-AT."""
    config = replace(pgd_at_config(setting), method="cat")
    return recipe(setting, "cat", "CAT", config, numbers)


def dart(setting: Setting, *numbers: float) -> Recipe:
    """DART as its authors' script runs it, FOSC measured as the paper defines it."""
    attack = AttackConfig(eps=0.031, num_steps=10, step_size=0.031 / 4)
    optim = replace(drops(setting, 59.0, 99.0, weight_decay=1e-4), lr=0.01)
    config = _rival(setting, "dart", 120, optim, attack)
    return recipe(setting, "dart", "DART", config, numbers, follows="paper")


def reward_ablation(slug: str, alpha: float, beta: float, *numbers: float) -> Recipe:
    """LAS-AT of Table 1 with k = 40 and parts of its reward."""
    config = replace(
        pgd_at_config(TABLE_6),
        strategy="learned",
        update_interval=BEST_K,
        attack=AttackConfig(grid=LAS_AT_GRID),
        loss=LossConfig(label_smoothing=0.3),
        policy=TABLE_6.las_at_policy,
    )
    config = replace(config, reward=replace(config.reward, alpha=alpha, beta=beta))
    row = f"LAS-AT with {', '.join(slug.upper().split('-'))}"
    return recipe(TABLE_6, f"las-at-{slug}", row, config, numbers, follows="paper")
