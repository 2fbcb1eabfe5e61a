"""How each row of Tables 1 to 7, of GTSRB and of the AWP ablation was trained.

Settings are the paper's where it speaks, else the published code's: grids, schedules, smoothing
and the policy's optimizer are from the code's README, k = 40 and the reward per image without a
baseline from the paper. Neither states alpha and beta beyond doubt, the nets of the GTSRB table,
or its augmentation: alpha = beta = 1, ResNet-18, and no flips (a flipped sign is another sign).
Rivals follow the defaults of their own scripts; PGD-AT shares the schedule of LAS-AT. Table 7
states no settings; its rows follow the tables before it. Scripts count epochs from 1, milestones
here from 0: a drop in epoch 75 is the milestone 74.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from lasat_ray.config import (
    AttackConfig,
    DataConfig,
    EvalConfig,
    LossConfig,
    OptimConfig,
    PolicyConfig,
    RewardConfig,
    SpeedConfig,
    TrainConfig,
)
from lasat_ray.config.units import parse_grid
from lasat_ray.recipes.paper_numbers import COLUMNS, NUMBERS
from lasat_ray.recipes.recipe import Recipe

LAS_AT_GRID = parse_grid("eps=3..15/255 num_steps=3..14 step_size=1..5/255")
LAS_TRADES_GRID = parse_grid("eps=5..9/255 num_steps=7..14 step_size=2..4/255 trades_beta=5..9")
LAS_AWP_GRID = parse_grid("eps=7..15/255 num_steps=8..16 step_size=2..5/255")
TRADES_ATTACK = AttackConfig(eps=0.031, num_steps=10, step_size=0.007)
PGD_10 = AttackConfig(eps=8 / 255, num_steps=10, step_size=2 / 255)
PLAIN = PolicyConfig(lr=1e-4, grad_clip=1.0, baseline="none")
MOMENTUM = replace(PLAIN, momentum=0.9, weight_decay=5e-4)
DEEPMIND_PIXELS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""Data set -> mean and deviation that DeepMind's nets standardize with."""
BEST_K = 40  # the paper's choice in Table 1; the published code has 20, 1 or 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One table: its data and net, and what differs between tables.

    ``kept``: share of the label on the true class in LAS-AT (the code's factor).
    """

    slug: str
    table: str
    dataset: str = "cifar10"
    model: str = "resnet18"
    kept: float = 0.7
    grad_clip: float = 0.0
    data: DataConfig = field(default_factory=DataConfig)
    las_at_policy: PolicyConfig = PLAIN
    las_trades_policy: PolicyConfig = MOMENTUM
    awp_warmup: int = 0
    lbgat_beta: float = 6.0

    @property
    def columns(self) -> tuple[str, ...]:
        return COLUMNS.get(self.table, ("clean", "aa"))


TABLE_1 = Setting(slug="table1-cifar10-resnet18", table="Table 1")
TABLE_2 = Setting(
    slug="table2-cifar10-wrn34-10",
    table="Table 2",
    model="wrn-34-10",
    lbgat_beta=0.0,  # what its authors' shell script runs on CIFAR-10
)
TABLE_3 = Setting(
    slug="table3-cifar100-wrn34-10",
    table="Table 3",
    dataset="cifar100",
    model="wrn-34-10",
    kept=0.6,
    las_at_policy=MOMENTUM,
)
TABLE_4 = Setting(
    slug="table4-tiny-imagenet-preactresnet18",
    table="Table 4",
    dataset="tiny-imagenet",
    model="preact_resnet18",
    kept=0.8,
    grad_clip=10.0,
    las_trades_policy=PLAIN,
    awp_warmup=10,
)
SETTINGS = (
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    Setting(slug="table5-cifar10-wrn70-16", table="Table 5", model="wrn-70-16"),
    replace(TABLE_3, slug="table5-cifar100-wrn34-20", table="Table 5", model="wrn-34-20"),
    replace(TABLE_1, slug="table6-cifar10-resnet18", table="Table 6"),
    replace(TABLE_2, slug="table7-cifar10-wrn34-10", table="Table 7"),
    Setting(slug="gtsrb", table="GTSRB", dataset="gtsrb", data=DataConfig(flip=False)),
    replace(TABLE_1, slug="ablation-cifar10-resnet18", table="AWP ablation"),
)


def base(setting: Setting) -> TrainConfig:
    """What all rows of a table share."""
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


def rival(
    setting: Setting, method: str, epochs: int, optim: OptimConfig, attack: AttackConfig = TRADES_ATTACK
) -> TrainConfig:
    """A method with its fixed attack."""
    config = replace(base(setting), method=method, strategy="fixed", epochs=epochs)
    return replace(config, optim=optim, attack=attack)


def pgd_at(setting: Setting, method: str = "pgd-at") -> TrainConfig:
    """PGD-10 adversarial training with the fixed attack 8/255, step 2/255; its schedule also for the
    methods whose authors state none (SAT, CAT: up to 10 steps)."""
    return rival(setting, method, 110, drops(setting, 99.0, 104.0), PGD_10)


def learned(config: TrainConfig, grid: dict[str, tuple[float, ...]], policy: PolicyConfig) -> TrainConfig:
    """Attacks chosen by a strategy net for every image, every 40th round rewarded."""
    config = replace(config, strategy="learned", update_interval=BEST_K)
    return replace(config, attack=AttackConfig(grid=grid), policy=policy)


def las_at(
    setting: Setting,
    k: int = BEST_K,
    reward: RewardConfig = RewardConfig(),  # noqa: B008 - frozen
) -> TrainConfig:
    """LAS-AT: label-smoothed cross-entropy; ``reward``: with the parts that an ablation keeps."""
    config = learned(pgd_at(setting), LAS_AT_GRID, setting.las_at_policy)
    loss = LossConfig(label_smoothing=round(1 - setting.kept, 6))
    return replace(config, update_interval=k, loss=loss, reward=reward)


def trades(setting: Setting) -> TrainConfig:
    """TRADES as its authors' script runs it."""
    return rival(setting, "trades", 76, drops(setting, 74.0, weight_decay=2e-4))


def las_trades(setting: Setting) -> TrainConfig:
    """LAS-AT around TRADES, whose beta becomes one more field of the strategy."""
    config = rival(setting, "trades", 100, drops(setting, 75.0, 90.0))
    return learned(config, LAS_TRADES_GRID, setting.las_trades_policy)


def mart(setting: Setting) -> TrainConfig:
    """MART as its authors' WideResNet script runs it."""
    return rival(setting, "mart", 90, drops(setting, 74.0, 89.0, weight_decay=7e-4))


def fat_or_gairat(setting: Setting, method: str) -> TrainConfig:
    """FAT with cross-entropy, and GAIRAT (Lambda -1 from epoch 60 on, tanh), as their scripts run them:
    tenths in epochs 60 and 90, half in epoch 110."""
    factors = (0.1, 0.1, 0.5)
    return rival(setting, method, 120, drops(setting, 59.0, 89.0, 109.0, weight_decay=2e-4, factors=factors))


def awp(setting: Setting, num_steps: int = 10, eps_255: int = 8) -> TrainConfig:
    """AT-AWP, gamma 0.01; the ablation varies the training attack."""
    attack = AttackConfig(eps=eps_255 / 255, num_steps=num_steps, step_size=2 / 255)
    return rival(setting, "at-awp", 200, drops(setting, 100.0, 150.0), attack)


def las_awp(setting: Setting) -> TrainConfig:
    """LAS-AT around AT-AWP: plain cross-entropy at perturbed weights."""
    loss = LossConfig(awp_gamma=0.01, awp_warmup=setting.awp_warmup)
    return replace(learned(awp(setting), LAS_AWP_GRID, setting.las_at_policy), loss=loss)


def lbgat(setting: Setting) -> TrainConfig:
    """Return LBGAT's configuration, with a ResNet-18 as the teacher that is trained beside the net."""
    # Its first epoch runs at 0.02, the others at 0.1 until the first drop.
    optim = drops(setting, 1.0, 75.0, 90.0, weight_decay=2e-4, factors=(5.0, 0.1, 0.1))
    config = rival(setting, "lbgat", 100, replace(optim, lr=0.02))
    return replace(config, loss=LossConfig(trades_beta=setting.lbgat_beta), teacher_model="resnet18")


def deepmind(config: TrainConfig) -> TrainConfig:
    """The net of that depth as DeepMind publishes it, with SiLU, pixels standardized: what RobustBench's rows
    of Gowal, Rebuffi, Rade and Pang et al. rest on (its ``DMWideResNet`` and ``DMPreActResNet``)."""
    mean, std = DEEPMIND_PIXELS[config.dataset]
    silu = "-silu" if config.model.startswith("wrn") else ""  # the other has no other activation
    data = replace(config.data, mean=mean, std=std)
    return replace(config, model=f"dm_{config.model}{silu}", data=data)


def gowal(setting: Setting) -> TrainConfig:
    """TRADES on the SiLU net with averaged weights, without extra data (Gowal et al. 2020)."""
    optim = OptimConfig(lr=0.2, nesterov=True, milestones=(400 / 3, 150.0), ema_decay=0.995)
    config = rival(setting, "gowal", 200, optim, PGD_10)
    return deepmind(replace(config, batch_size=512))


def madry(setting: Setting) -> TrainConfig:
    """Madry et al. 2018: 7 steps of 2/255; rates drop by ten after 40,000 and 60,000 updates."""
    optim = drops(setting, 102.0, 153.0, weight_decay=2e-4)
    return rival(setting, "madry", 200, optim, replace(PGD_10, num_steps=7))


def las_madry(setting: Setting) -> TrainConfig:
    """LAS-AT around Madry's training: the same schedule, strategies learned, no smoothing."""
    return learned(madry(setting), LAS_AT_GRID, PLAIN)


def dart(setting: Setting) -> TrainConfig:
    """DART as its authors' script runs it, FOSC measured as the paper defines it."""
    attack = AttackConfig(eps=0.031, num_steps=10, step_size=0.031 / 4)
    return rival(
        setting, "dart", 120, replace(drops(setting, 59.0, 99.0, weight_decay=1e-4), lr=0.01), attack
    )


Follows = Literal["paper", "code", ""]
ConfigOf = Callable[[Setting], TrainConfig]
ROWS: dict[str, tuple[str, ConfigOf, Follows]] = {
    "clean": ("Clean", partial(pgd_at, method="clean"), ""),
    "pgd-at": ("PGD-AT", pgd_at, ""),
    "trades": ("TRADES", trades, "code"),
    "mart": ("MART", mart, "code"),
    "fat": ("FAT", partial(fat_or_gairat, method="fat"), "code"),
    "gairat": ("GAIRAT", partial(fat_or_gairat, method="gairat"), "code"),
    "awp": ("AWP", awp, "code"),
    "lbgat": ("LBGAT", lbgat, "code"),
    "sat": ("SAT", partial(pgd_at, method="sat"), ""),
    "gowal": ("Gowal et al.", gowal, "paper"),
    "madry-at": ("Madry-AT", madry, "paper"),
    "cat": ("CAT", partial(pgd_at, method="cat"), ""),
    "dart": ("DART", dart, "paper"),
    "las-at": ("LAS-AT", las_at, "paper"),
    **{f"las-at-k{k}": (f"LAS-AT (k={k})", partial(las_at, k=k), "paper") for k in (1, 10, 20, 40, 60)},
    "las-at-l1": ("LAS-AT with L1", partial(las_at, reward=RewardConfig(alpha=0.0, beta=0.0)), "paper"),
    "las-at-l1-l2": (
        "LAS-AT with L1, L2",
        partial(las_at, reward=RewardConfig(alpha=1.0, beta=0.0)),
        "paper",
    ),
    "las-at-l1-l3": (
        "LAS-AT with L1, L3",
        partial(las_at, reward=RewardConfig(alpha=0.0, beta=1.0)),
        "paper",
    ),
    "las-at-l1-l2-l3": (
        "LAS-AT with L1, L2, L3",
        partial(las_at, reward=RewardConfig(alpha=1.0, beta=1.0)),
        "paper",
    ),
    "las-trades": ("LAS-TRADES", las_trades, "paper"),
    "las-awp": ("LAS-AWP", las_awp, "paper"),
    "las-madry-at": ("LAS-Madry-AT", las_madry, "paper"),
    **{
        f"awp-steps{steps}-eps{eps}": (
            f"AWP (I_train={steps}, eps_train={eps})",
            partial(awp, num_steps=steps, eps_255=eps),
            "code",
        )
        for steps, eps in ((10, 8), (10, 15), (15, 8))
    },
}
"""Slug of a row -> its name in the table, its config on a table's data and net, whose settings it follows."""


def paper_recipes() -> list[Recipe]:
    """Every row, in the order of the tables."""
    return [_recipe(setting, slug) for setting in SETTINGS for slug in NUMBERS[setting.slug]]


def _recipe(setting: Setting, slug: str) -> Recipe:
    name, (row, config_of, follows) = f"{setting.slug}-{slug}", ROWS[slug]
    numbers = NUMBERS[setting.slug][slug]
    return Recipe(
        name=name,
        config=replace(config_of(setting), recipe=name),
        summary=f"{row} on {setting.dataset}, {setting.model}",
        table=setting.table,
        row=row,
        reported=dict(zip(setting.columns, map(float, numbers), strict=True)),
        follows=follows,
    )
