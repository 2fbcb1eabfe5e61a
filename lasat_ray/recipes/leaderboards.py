"""The rows of the two public leaderboards that the LAS-AT talk shows, as far as their settings are
known: from the authors' READMEs (HYDRA, HAT), from the tables' rows of the same method, else from
the rows before them (SCORE and Rebuffi et al. as HAT's; LTD, whose code is not published, as PGD-AT).

Extra and synthetic images are the user's to name, with --data.extra and --data.extra-fraction (0.7
in the published runs with a million images). PreActResNet-18 is here with ReLU, there with SiLU.
"""

from __future__ import annotations

from dataclasses import replace

from lasat_ray.config import AttackConfig, LossConfig, OptimConfig, TrainConfig
from lasat_ray.recipes.published import TABLE_1, TABLE_3, Setting, base, drops, pgd_at_config
from lasat_ray.recipes.recipe import Recipe
from lasat_ray.recipes.rows import TRADES_ATTACK, gowal_config, las_awp_config, mart_config

PGD_10 = AttackConfig(eps=8 / 255, num_steps=10, step_size=2 / 255)
COSINE = OptimConfig(
    lr=0.4, nesterov=True, schedule="cosine", warmup_epochs=10.0, ema_decay=0.995
)  # imrahulr/hat: train-wa.py


IMAGES = {
    **dict.fromkeys((1, 31, 36), ", extra data"),
    **dict.fromkeys((2, 3, 4, 32, 35), ", a million synthetic images"),
}
"""What the row of a rank was trained on beyond the data set."""


def leaderboard_rows() -> list[Recipe]:
    """In the order of the ranks, CIFAR-100 first as in the talk."""
    big, middle, wide = (
        _at("cifar100", "wrn-70-16"),
        _at("cifar100", "wrn-28-10"),
        _at("cifar100", "wrn-34-20"),
    )
    small, ten = _at("cifar10", "preact_resnet18"), _at("cifar10", "wrn-34-10")
    extra = _at("cifar10", "wrn-28-10")
    return [
        _row(big, 1, "gowal", "Gowal et al.", gowal_config(big), 69.15, 36.88),
        _row(big, 2, "rebuffi", "Rebuffi et al.", _rebuffi(big), 63.56, 34.64),
        _row(big, 3, "score", "SCORE", _score(big), 65.56, 33.05),
        _row(middle, 4, "rebuffi", "Rebuffi et al.", _rebuffi(middle), 62.41, 32.06),
        _row(wide, 5, "las-awp", "LAS-AT", las_awp_config(wide), 67.31, 31.91),
        _row(extra, 31, "hydra", "HYDRA", _hydra(extra), 88.98, 57.14, needs=("--init-from",)),
        _row(small, 32, "hat", "HAT", _hat(small), 86.88, 57.09, needs=("--teacher",)),
        _row(ten, 33, "ltd", "LTD", _ltd(ten), 85.21, 56.94, needs=("--teacher",)),
        _row(
            _at("cifar10", "wrn-34-20"),
            34,
            "gowal",
            "Gowal et al.",
            gowal_config(_at("cifar10", "wrn-34-20")),
            85.64,
            56.88,
        ),
        _row(small, 35, "rebuffi", "Rebuffi et al.", _rebuffi(small), 83.53, 56.66),
        _row(extra, 36, "mart", "MART", mart_config(extra), 87.50, 56.29),
        _row(ten, 37, "las-awp", "LAS-AT", las_awp_config(ten), 84.98, 56.26),
    ]


def _at(dataset: str, model: str) -> Setting:
    like = TABLE_3 if dataset == "cifar100" else TABLE_1
    table = f"{dataset.upper().replace('CIFAR', 'CIFAR-')} leaderboard"
    slug = f"leaderboard-{dataset}"
    return replace(like, slug=slug, table=table, dataset=dataset, model=model, columns=("clean", "aa"))


def _row(
    setting: Setting,
    rank: int,
    slug: str,
    row: str,
    config: TrainConfig,
    clean: float,
    aa: float,
    needs: tuple[str, ...] = (),
) -> Recipe:
    name = f"{setting.slug}-{rank}-{slug}"
    return Recipe(
        name=name,
        config=replace(config, recipe=name),
        summary=f"{row} on {setting.dataset}{IMAGES.get(rank, '')}, {setting.model}",
        table=setting.table,
        row=f"{rank}. {row}",
        reported={"clean": clean, "aa": aa},
        needs=needs,
    )


def _averaged(setting: Setting, method: str, loss: LossConfig) -> TrainConfig:
    """The settings that HAT's authors took over from Gowal et al. and Rebuffi et al."""
    config = replace(base(setting), method=method, strategy="fixed", epochs=400, batch_size=1024)
    silu = "-silu" if setting.model.startswith("wrn") else ""
    config = replace(config, model=setting.model + silu, attack=PGD_10, optim=COSINE)
    return replace(config, loss=replace(loss, label_smoothing=0.1))


def _rebuffi(setting: Setting) -> TrainConfig:
    return _averaged(setting, "rebuffi", LossConfig())


def _score(setting: Setting) -> TrainConfig:
    return _averaged(setting, "score", LossConfig())


def _hat(setting: Setting) -> TrainConfig:
    return _averaged(setting, "hat", LossConfig(trades_beta=3.5, hat_gamma=0.5))


def _ltd(setting: Setting) -> TrainConfig:
    return replace(pgd_at_config(setting), method="ltd", loss=LossConfig(ltd_temperature=5.0))


def _hydra(setting: Setting) -> TrainConfig:
    """90 % pruned; 20 epochs learn scores, 100 fine-tune at a tenth of the rate."""
    optim = replace(drops(setting), schedule="cosine", weight_decay=1e-4)
    config = replace(base(setting), method="hydra", strategy="fixed", epochs=120, optim=optim)
    return replace(config, attack=replace(TRADES_ATTACK, step_size=0.0078))
