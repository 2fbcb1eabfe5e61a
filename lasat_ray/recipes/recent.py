"""The strongest published training without extra data since 2022, as far as papers and scripts tell it.

Numbers are the papers' own; none of these recipes has been run to its end here. What differs from the
authors' scripts in all of them: attacks see the net in eval mode, pixels are not standardized, and 2 % of
the training images choose the epoch that is kept.
"""

from __future__ import annotations

from dataclasses import replace

from lasat_ray.config import AttackConfig, DataConfig, LossConfig, OptimConfig, TrainConfig
from lasat_ray.recipes.alike import alike_recipes
from lasat_ray.recipes.paper import TABLE_1, TABLE_2, TABLE_3, Setting, base
from lasat_ray.recipes.rate import rate_sibling
from lasat_ray.recipes.rebat import rebat_recipes
from lasat_ray.recipes.recipe import Recipe

EPS = 8 / 255
IKL_EPOCHS = 200


def recent_recipes() -> list[Recipe]:
    """IKL-AT (Cui et al., NeurIPS 2024), ADR (Wu et al., ICLR 2024), KD-SWA (Chen et al., ICLR 2021), TE
    (Dong et al., ICLR 2022), IDBH (Li and Spratling, ICLR 2023), ReBAT (Wang et al., NeurIPS 2023) and what
    can be said of DAJAT and OA-AT, each alone and with attacks that are learned and paid by the pass."""
    alone = [
        _ikl(TABLE_2, 4.0, "Table 3", {"clean": 84.80, "aa": 57.09}),
        _ikl(TABLE_3, 5.0, "Table 2", {"clean": 65.76, "aa": 31.91}),
        *_adr(TABLE_1, (2.5, 2.0), {"clean": 82.41, "aa": 50.39}, {"clean": 82.59, "aa": 50.86}),
        *_adr(
            replace(TABLE_1, dataset="cifar100"),
            (1.5, 1.0),
            {"clean": 56.10, "aa": 26.89},
            {"clean": 58.30, "aa": 27.54},
        ),
        _adr_awp(TABLE_2, (2.5, 1.5), {"clean": 86.11, "aa": 55.22}),
        _adr_awp(TABLE_3, (2.0, 1.0), {"clean": 62.21, "aa": 31.63}),
        _kd_swa(),
        _te(),
        _idbh(),
        *alike_recipes(),
        *rebat_recipes(),
    ]
    return [*alone, *(_rate(recipe) for recipe in alone)]


def _rate(recipe: Recipe) -> Recipe:
    """The same training, but for its attacks, which are learned: full budgets from the first epoch on."""
    attack = replace(recipe.config.attack, grid={})  # a course over the epochs is nothing to choose from
    return rate_sibling(replace(recipe, config=replace(recipe.config, strategy="learned", attack=attack)))


def _ikl(setting: Setting, beta: float, table: str, reported: dict[str, float]) -> Recipe:
    """The budget grows from epoch to epoch; every attack takes 5 steps of half of it."""
    name = f"ikl-{setting.dataset}-wrn34-10"
    sizes = tuple(EPS * (epoch + 1) / IKL_EPOCHS for epoch in range(IKL_EPOCHS))
    config = replace(
        base(setting),
        recipe=name,
        method="ikl",
        strategy="curriculum",
        epochs=IKL_EPOCHS,
        attack=AttackConfig(
            eps=EPS,
            num_steps=5,
            step_size=EPS / 2,
            grid={"eps": sizes, "step_size": tuple(size / 2 for size in sizes)},
        ),
        loss=LossConfig(trades_beta=beta, ikl_alpha=20.0, ikl_temperature=4.0, awp_gamma=0.005, awp_warmup=9),
        # They average the nets of all epochs with 0.9: this is the same a round.
        optim=OptimConfig(lr=0.2, schedule="cosine", ema_decay=round(0.9 ** (1 / 391), 6)),
    )
    return Recipe(
        name=name,
        config=_judged(config),
        summary=f"IKL-AT (Cui et al. 2024, {table}) on {setting.dataset}, {setting.model}, with AWP",
        reported=reported,
        follows="code",
    )


def _adr_config(setting: Setting, name: str, loss: LossConfig, optim: OptimConfig) -> TrainConfig:
    """What all of the authors' rows share: 200 epochs of PGD-10."""
    config = replace(
        base(setting),
        recipe=name,
        method="adr",
        strategy="fixed",
        epochs=200,
        attack=AttackConfig(eps=EPS, num_steps=10, step_size=EPS / 4),
        loss=replace(loss, adr_decay=0.995),
        optim=optim,
    )
    return _judged(config)


def _adr_recipe(setting: Setting, config: TrainConfig, how: str, reported: dict[str, float]) -> Recipe:
    told = f"ADR (Wu et al. 2024) on {setting.dataset}, {setting.model}{how}"
    return Recipe(name=config.recipe, config=config, summary=told, reported=reported, follows="code")


def _adr(
    setting: Setting, temperature: tuple[float, float], alone: dict[str, float], averaged: dict[str, float]
) -> list[Recipe]:
    """The net itself, and its average, which also forms the labels; numbers: the authors' page."""
    name = f"adr-{setting.dataset}-resnet18"
    loss = LossConfig(adr_temperature=temperature, adr_trust=(0.7, 0.95))
    optim = OptimConfig(lr=0.1, nesterov=True, schedule="multistep", milestones=(100.0, 150.0))
    config = _adr_config(setting, name, loss, optim)
    wa = replace(config, recipe=f"{name}-wa", optim=replace(optim, ema_decay=0.995))
    return [
        _adr_recipe(setting, config, "", alone),
        _adr_recipe(setting, wa, ", averaged weights", averaged),
    ]


def _adr_awp(setting: Setting, temperature: tuple[float, float], reported: dict[str, float]) -> Recipe:
    """The strongest rows of the authors' page: averaged and perturbed weights."""
    loss = LossConfig(adr_temperature=temperature, adr_trust=(0.7, 0.85), awp_gamma=0.005)
    optim = OptimConfig(lr=0.1, schedule="multistep", milestones=(100.0, 150.0), ema_decay=0.995)
    config = _adr_config(setting, f"adr-{setting.dataset}-wrn34-10-wa-awp", loss, optim)
    return _adr_recipe(setting, config, ", averaged weights, AWP", reported)


def _kd_swa() -> Recipe:
    """Its two teachers are a net of --method clean and one of pgd-at, of the same architecture."""
    name = "kd-swa-cifar10-resnet18"
    optim = OptimConfig(lr=0.1, schedule="multistep", milestones=(50.0, 150.0), swa_start=55.0)
    config = replace(
        base(TABLE_1),
        recipe=name,
        method="kd-swa",
        strategy="fixed",
        epochs=200,
        attack=AttackConfig(eps=EPS, num_steps=10, step_size=EPS / 4),
        data=DataConfig(val_fraction=0.1),
        optim=optim,
    )
    return Recipe(
        name=name,
        config=_judged(config),
        summary="KD-SWA (Chen et al. 2021) on cifar10, resnet18: two teachers, averaged weights",
        follows="code",
        needs=("--teacher", "--robust-teacher"),
    )


def _te() -> Recipe:
    name = "te-cifar10-resnet18"
    config = replace(
        base(TABLE_1),
        recipe=name,
        method="te",
        strategy="fixed",
        epochs=200,
        attack=AttackConfig(eps=EPS, num_steps=10, step_size=EPS / 4),
        optim=OptimConfig(lr=0.1, schedule="multistep", milestones=(100.0, 150.0)),
    )
    return Recipe(
        name=name,
        config=_judged(config),
        summary="temporal ensembling (Dong et al. 2022) on cifar10, resnet18",
        follows="code",
    )


def _idbh() -> Recipe:
    """The strong form of its augmentation; their command and the defaults of their scripts."""
    name = "idbh-cifar10-preactresnet18"
    config = replace(
        base(replace(TABLE_1, model="preact_resnet18")),
        recipe=name,
        method="pgd-at",
        strategy="fixed",
        epochs=200,
        attack=AttackConfig(eps=EPS, num_steps=10, step_size=EPS / 4),
        data=DataConfig(crop_padding=0, crop_shift=10, policy="color-biased", erasing=1.0),
        optim=OptimConfig(lr=0.1, schedule="multistep", milestones=(100.0, 150.0)),
    )
    return Recipe(
        name=name,
        config=_judged(config),
        summary="PGD-AT with IDBH (Li and Spratling 2023), its strong form, on cifar10, PreActResNet-18",
        follows="code",
    )


def _judged(config: TrainConfig) -> TrainConfig:
    return replace(config, evaluation=replace(config.evaluation, test_num_steps=(10, 50)))
