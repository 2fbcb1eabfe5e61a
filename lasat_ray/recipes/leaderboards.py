"""The rows of the two public leaderboards that the LAS-AT talk shows, as far as their settings are
known: from the authors' READMEs (HYDRA, HAT), from the tables' rows of the same method, else from
the rows before them (SCORE and Rebuffi et al. as HAT's; LTD, whose code is not published, as PGD-AT).

Extra and synthetic images are the user's to name, with --data.extra and --data.extra-fraction (0.7
in the published runs with a million images). Nets are those that RobustBench evaluates for these rows.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from lasat_ray.config import LossConfig, OptimConfig, TrainConfig
from lasat_ray.recipes.paper import (
    PGD_10,
    TABLE_1,
    TABLE_3,
    TRADES_ATTACK,
    ConfigOf,
    Setting,
    deepmind,
    drops,
    gowal,
    las_awp,
    mart,
    pgd_at,
    rival,
)
from lasat_ray.recipes.paper_numbers import LEADERBOARD, PUBLICATIONS, SYNTHETIC, Entry
from lasat_ray.recipes.recipe import Recipe

COSINE = OptimConfig(
    lr=0.4, nesterov=True, schedule="cosine", warmup_epochs=10.0, ema_decay=0.995
)  # imrahulr/hat: train-wa.py


def leaderboard_recipes() -> list[Recipe]:
    """In the order of the ranks, CIFAR-100 first as in the talk."""
    return [_recipe(entry) for entry in LEADERBOARD]


def _recipe(entry: Entry) -> Recipe:
    dataset = entry.dataset
    like = TABLE_3 if dataset == "cifar100" else TABLE_1
    table = f"{dataset.upper().replace('CIFAR', 'CIFAR-')} leaderboard"
    slug = f"leaderboard-{dataset}"
    setting = replace(like, slug=slug, table=table, dataset=dataset, model=entry.model)
    row, name = PUBLICATIONS[entry.slug][0], f"{slug}-{entry.rank}-{entry.slug}"
    config, needs = _CONFIGS[entry.slug]
    images = ", extra data" if entry.extra_data else ""
    images = ", a million synthetic images" if entry.rank in SYNTHETIC else images
    return Recipe(
        name=name,
        config=replace(config(setting), recipe=name),
        summary=f"{row} on {dataset}{images}, {entry.model}",
        table=table,
        row=f"{entry.rank}. {row}",
        reported={"clean": entry.clean, "aa": entry.aa},
        needs=needs,
        entry=entry,
    )


def _averaged(setting: Setting, method: str, loss: LossConfig) -> TrainConfig:
    """The settings that HAT's authors took over from Gowal et al. and Rebuffi et al."""
    config = replace(rival(setting, method, 400, COSINE, PGD_10), batch_size=1024)
    return deepmind(replace(config, loss=replace(loss, label_smoothing=0.1)))


def _ltd(setting: Setting) -> TrainConfig:
    return replace(pgd_at(setting, "ltd"), loss=LossConfig(ltd_temperature=5.0))


def _hydra(setting: Setting) -> TrainConfig:
    """90 % pruned; 20 epochs learn scores, 100 fine-tune at a tenth of the rate."""
    optim = replace(drops(setting), schedule="cosine", weight_decay=1e-4)
    return rival(setting, "hydra", 120, optim, replace(TRADES_ATTACK, step_size=0.0078))


_CONFIGS: dict[str, tuple[ConfigOf, tuple[str, ...]]] = {
    "gowal": (gowal, ()),
    "rebuffi": (partial(_averaged, method="rebuffi", loss=LossConfig()), ()),
    "score": (partial(_averaged, method="score", loss=LossConfig()), ()),
    "las-awp": (las_awp, ()),
    "hydra": (_hydra, ("--init-from",)),
    "hat": (
        partial(_averaged, method="hat", loss=LossConfig(trades_beta=3.5, hat_gamma=0.5)),
        ("--teacher",),
    ),
    "ltd": (_ltd, ("--teacher",)),
    "mart": (mart, ()),
}
"""Slug -> its config on a leaderboard's data and net, and the options that only the user can give."""
