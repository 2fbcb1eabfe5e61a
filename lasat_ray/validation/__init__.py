"""Refuses settings that cannot work, before anything runs: one line with field, value, remedy.

Single fields are checked by the table BOUNDS, lengths and grids in ``validate_grid``; what must fit
together by the functions after it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

from lasat_ray.config import DataConfig, OptimConfig, RewardConfig, TrainConfig
from lasat_ray.config.data import check_trained_on
from lasat_ray.config.json_io import flag, leaves
from lasat_ray.config.numerics import NumericsConfig
from lasat_ray.config.traits import traits_of
from lasat_ray.config.units import format_budget, parse_lr_factor
from lasat_ray.errors import UsageError, refusal, unknown_name
from lasat_ray.validation.grid import NOT_NEGATIVE, SHARE, Bound, check_bound, check_grid, length_bounds
from lasat_ray.validation.learner import check_learner
from lasat_ray.validation.method import check_method, check_milestones

DATASETS = ("digits", "cifar10", "cifar100", "svhn", "gtsrb", "tiny-imagenet")
DATASETS_WITH_PATH = ("imagefolder", "parquet", "npz", "stream")
SIZED = ("imagefolder", "parquet", "stream")
"""Sources whose images may be of any size."""

_COUNT: Bound = (lambda v: v >= 1, "give 1 or more")
_POSITIVE: Bound = (lambda v: v > 0, "give more than 0")
_FRACTION: Bound = (lambda v: 0 <= v < 1, "give 0 or more and less than 1")
_FACTOR: Bound = (lambda v: 0 < v <= 1, "give more than 0 and at most 1")
_LAMBDA: Bound = (lambda v: -100 <= v <= 100, "give a number from -100 to 100")
_GAP: Bound = (lambda v: -1 <= v <= 1, "give a difference of probabilities, from -1 to 1")

BOUNDS: dict[str, Bound] = {
    **dict.fromkeys(
        ("update_interval", "epochs", "batch_size", "attack.num_steps", "attack.restarts"), _COUNT
    ),
    **dict.fromkeys(("reward.ref_num_steps", "reward.ref_restarts", "data.max_test"), _COUNT),
    **dict.fromkeys(("evaluation.every", "evaluation.val_num_steps", "evaluation.batch_size"), _COUNT),
    **dict.fromkeys(("reward.outcome_images",), _COUNT),
    "attack.momentum": SHARE,
    "data.mixup": (lambda v: 0 <= v <= 1, "give a number from 0 to 1"),
    "data.erasing": (lambda v: 0 <= v <= 1, "give a probability from 0 to 1"),
    "data.erasing_area": (lambda v: 0.02 <= v <= 1, "give a share from 0.02 to 1"),
    "reward.outcome_fraction": (lambda v: 0 < v < 1, "give more than 0 and less than 1"),
    "reward.cost_target": NOT_NEGATIVE,
    **dict.fromkeys(("budget_passes", "budget_minutes"), NOT_NEGATIVE),
    "stop_patience": _COUNT,
    "data.image_size": (lambda v: 1 <= v <= 4096, "give a number of pixels from 1 to 4096"),
    "data.max_train": (lambda v: v >= 2, "give 2 or more"),
    **dict.fromkeys(
        ("seed", "data.crop_padding", "data.crop_shift", "data.cutout", "reward.check_every"), NOT_NEGATIVE
    ),
    **dict.fromkeys(("data.stream_window", "data.stream_lanes"), _COUNT),
    **dict.fromkeys(("data.val_fraction", "data.extra_fraction"), _FRACTION),
    **dict.fromkeys(("loss.label_smoothing", "reward.copy_label_smoothing"), _FRACTION),
    **dict.fromkeys(("loss.trades_beta", "reward.alpha", "reward.beta", "reward.l1_weight"), NOT_NEGATIVE),
    **dict.fromkeys(("reward.copy_weight_decay", "reward.r2_factor", "reward.r3_factor"), NOT_NEGATIVE),
    **dict.fromkeys(("policy.weight_decay", "policy.grad_clip", "policy.entropy_weight"), NOT_NEGATIVE),
    **dict.fromkeys(("optim.weight_decay", "optim.grad_clip", "optim.warmup_epochs"), NOT_NEGATIVE),
    **dict.fromkeys(("reward.clamp", "policy.lr", "optim.lr"), _POSITIVE),
    **dict.fromkeys(("policy.momentum", "optim.momentum", "optim.ema_decay"), _FRACTION),
    "optim.beta2": _FRACTION,
    "optim.warmup_start": _FACTOR,
    **dict.fromkeys(("policy.entropy_final", "policy.value_weight", "policy.exploration"), NOT_NEGATIVE),
    "policy.initial_price": NOT_NEGATIVE,
    **dict.fromkeys(("policy.clip", "policy.target_kl", "policy.mirror_step"), _POSITIVE),
    **dict.fromkeys(("policy.update_epochs", "policy.minibatches"), _COUNT),
    "policy.min_exploration": _FRACTION,
    "policy.discount": _FACTOR,
    **dict.fromkeys(("loss.awp_gamma", "loss.dart_epochs", "loss.sat_epochs"), _POSITIVE),
    **dict.fromkeys(("loss.ltd_temperature", "loss.ikl_temperature"), _POSITIVE),
    **dict.fromkeys(("loss.ikl_alpha", "loss.te_weight"), NOT_NEGATIVE),
    **dict.fromkeys(("loss.adr_decay", "loss.kd_plain", "loss.kd_robust", "loss.te_decay"), _FRACTION),
    **{"loss.rebat_decay": _FRACTION, "loss.rebat_weight": NOT_NEGATIVE, "loss.rebat_start": NOT_NEGATIVE},
    **{"loss.atas_c": _POSITIVE, "loss.atas_decay": _FRACTION, "loss.atas_warmup": NOT_NEGATIVE},
    "loss.kd_temperature": _POSITIVE,
    "optim.swa_start": NOT_NEGATIVE,
    "optim.restart_epochs": _POSITIVE,
    "optim.restart_factor": (lambda v: 1 <= v <= 100, "give a number from 1 to 100"),
    "speed.bucket": NOT_NEGATIVE,
    **dict.fromkeys(("loss.awp_warmup", "loss.fat_omega", "loss.dart_fosc", "loss.hat_gamma"), NOT_NEGATIVE),
    **dict.fromkeys(("loss.gairat_lambda", "loss.gairat_lambda_max"), _LAMBDA),
    "loss.sat_start": _GAP,
    **dict.fromkeys(("loss.cat_threshold", "loss.hydra_keep", "loss.hydra_tune_rate"), _FACTOR),
    **dict.fromkeys(("loss.hydra_epochs", "numerics.max_faults"), _COUNT),
    "numerics.rollback_factor": (lambda v: 0 < v < 1, "give more than 0 and less than 1"),
}


def check(
    config: TrainConfig,
    methods: Collection[str] | None = None,
    learners: Collection[str] | None = None,
) -> None:
    """UsageError for the first setting that cannot work.

    ``methods``, ``learners``: the known names; ``module:name`` is let through, and None leaves
    names unchecked (so that this file loads without torch).
    """
    bounds = {**BOUNDS, **length_bounds(config)}
    for path, value in leaves(config):
        _check_finite(path, value)
        if path in bounds and value is not None:
            check_bound(flag(path), value, bounds[path])
    if methods is not None:
        _check_method(config.method, methods)
    if learners is not None and config.learns:
        check_name("--learner", config.learner, learners)
    _check_dataset(config.dataset)
    _check_images(config)
    _check_extra(config)
    _check_stream(config)
    _check_attack(config)
    check_method(config)
    check_grid(config)
    _check_reward(config)
    check_learner(config)
    _check_optim(config)
    _check_speed(config)
    _check_length(config)
    _check_test_steps(config.evaluation.test_num_steps)
    _check_numerics(config.numerics)


def _check_length(config: TrainConfig) -> None:
    """What ends a run must be able to."""
    if config.budget_passes and config.budget_minutes:
        shown, what = f"{config.budget_minutes:g}", "stands beside --budget-passes"
        raise refusal("--budget-minutes", shown, what, "give one of the two")
    if config.stop_on == "gain" and (not config.learns or config.reward.objective != "rate"):
        what = "needs the gain that the rate objective measures"
        raise refusal("--stop-on", "'gain'", what, "add --reward.objective rate, or use validation")
    if config.stop_on == "validation" and config.data.val_fraction == 0:
        what = "has no validation images"
        raise refusal("--stop-on", "'validation'", what, "give --data.val-fraction 0.1, say")
    if config.stop_on == "none" and config.stop_patience != TrainConfig().stop_patience:
        what = "has no effect with --stop-on none"
        raise refusal("--stop-patience", config.stop_patience, what, "use --stop-on validation or gain")


def _check_method(name: str, methods: Collection[str]) -> None:
    """As ``check_name``; the paper's name of a method with a learned strategy is told how it is spelled."""
    alone = name.removeprefix("las-")
    alone = {"at": "pgd-at", "awp": "at-awp"}.get(alone, alone)
    if name.startswith("las-") and alone in methods:
        what = f"is '{alone}' with a learned strategy"
        raise refusal("--method", f"'{name}'", what, f"give --method {alone} --strategy learned")
    check_name("--method", name, methods)


def check_name(option: str, name: str, allowed: Collection[str]) -> None:
    """Refuse a name that is neither in ``allowed`` nor spelled module:name."""
    if name not in allowed and ":" not in name:
        raise unknown_name(option, name, allowed)


def _numbers(value: Any) -> Iterable[float]:
    """Every number in a setting, however nested."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)):
        yield value


def _check_finite(path: str, value: Any) -> None:
    for number in _numbers(value):
        if not math.isfinite(number):
            raise refusal(flag(path), number, "is not a finite number", "give a finite one")


def _check_dataset(dataset: str) -> None:
    kind, colon, path = dataset.partition(":")
    check_trained_on(dataset)
    if kind in DATASETS_WITH_PATH:
        if not path:
            raise refusal("--dataset", f"'{dataset}'", "names no file", f"write {kind}:PATH")
    elif kind not in DATASETS or colon:
        spelled = [*DATASETS, *(f"{name}:PATH" for name in DATASETS_WITH_PATH)]
        raise unknown_name("--dataset", dataset, spelled)


def _check_images(config: TrainConfig) -> None:
    """Sizes and normalization of images."""
    data, kind = config.data, config.dataset.partition(":")[0]
    if data.image_size is not None and kind not in SIZED:
        what = f"has no effect with --dataset {kind}, whose images have their size"
        raise refusal(
            "--data.image-size", data.image_size, what, f"leave it out, or use {' or '.join(SIZED)}"
        )
    if data.fit != "stretch" and (data.image_size is None and "@" not in config.dataset):
        raise refusal("--data.fit", f"'{data.fit}'", "has no effect without --data.image-size", "add it")
    for value in data.std:
        check_bound("--data.std", value, _POSITIVE)
    for name in ("mean", "std"):
        if not getattr(data, name):
            raise refusal(flag(f"data.{name}"), "nothing", "is no number", "give one, or one a channel")


def _check_extra(config: TrainConfig) -> None:
    data = config.data
    if data.extra is None:
        if data.extra_fraction > 0:
            share = f"{data.extra_fraction:g}"
            raise refusal(
                "--data.extra-fraction",
                share,
                "has nothing to draw from",
                "add --data.extra npz:PATH or stream:URL",
            )
        return
    kind, _, path = data.extra.partition(":")
    if kind not in ("npz", "stream") or not path:
        what, remedy = "is not a source of extra images", "write npz:PATH or stream:URL"
        raise refusal("--data.extra", f"'{data.extra}'", what, remedy)
    if data.extra_fraction == 0:
        raise refusal(
            "--data.extra", f"'{data.extra}'", "is never used", "add --data.extra-fraction, say 0.5"
        )


def _check_stream(config: TrainConfig) -> None:
    data = config.data
    main = config.dataset.startswith("stream:")
    if main and data.max_train is not None:
        what, remedy = "cannot be chosen from a stream, whose files are read whole", "leave it out"
        raise refusal("--data.max-train", data.max_train, what, remedy)
    if main and data.mixed_by:
        what = "needs any two training images at once, which a stream does not hold"
        shown = "True" if data.cutmix else f"{data.mixup:g}"
        raise refusal(data.mixed_by, shown, what, "leave it out, or load them with parquet:")
    if main or (data.extra or "").startswith("stream:"):
        return
    for name in ("stream_window", "stream_lanes"):
        if getattr(data, name) != getattr(DataConfig(), name):
            what = "has no effect without --dataset stream:URL or --data.extra stream:URL"
            raise refusal(flag(f"data.{name}"), getattr(data, name), what, "leave it out")


def _check_attack(config: TrainConfig) -> None:
    attack = config.attack
    if config.method == "clean" and config.strategy != "fixed":
        shown = f"'{config.strategy}'"
        raise refusal(
            "--strategy", shown, "has no attack to choose with --method clean", "use --strategy fixed"
        )
    if attack.start in ("normal", "zero") and attack.start_radius is not None:
        what = f"has no effect with --attack.start {attack.start}"
        raise refusal("--attack.start-radius", format_budget(attack.start_radius), what, "give None")


def _check_reward(config: TrainConfig) -> None:
    reward = config.reward
    if not config.learns:
        return
    if reward.mode == "reference" and reward.credit != "batch":
        what = "does not go with --reward.mode reference, which pays one scalar a batch"
        raise refusal("--reward.credit", f"'{reward.credit}'", what, "add --reward.credit batch")
    _check_objective(reward)
    if reward.credit == "influence" and not reward.standardize:
        what = "compares L1 and influences of unlike scale"
        raise refusal("--reward.credit", "'influence'", what, "add --reward.standardize")
    if reward.credit == "batch" and reward.check_every:
        what = "has nothing to compare with --reward.credit batch, which pays every image the same"
        raise refusal("--reward.check-every", reward.check_every, what, "give 0")
    if reward.credit == "batch" and reward.standardize:
        what = "makes every reward 0 with --reward.credit batch"
        raise refusal("--reward.standardize", "True", what, "use --reward.no-standardize")
    if reward.lookahead == "real":
        for name in ("copy_weight_decay", "copy_label_smoothing"):
            if value := getattr(reward, name):
                what = "has no effect with --reward.lookahead real"
                raise refusal(flag(f"reward.{name}"), value, what, "use --reward.lookahead copy, or 0")


def _check_objective(reward: RewardConfig) -> None:
    """What goes with pricing the cost, and with outcomes on held-out images."""
    if reward.objective == "rate" and (reward.credit == "batch" or reward.mode == "reference"):
        what = "prices each image's own gain, which a scalar a batch does not tell"
        raise refusal("--reward.objective", "'rate'", what, "use --reward.credit influence or image")
    if reward.objective == "rate" and reward.credit == "image" and reward.standardize:
        what = "prices gains in their own units, which --reward.standardize removes from credit image"
        raise refusal("--reward.objective", "'rate'", what, "add --reward.no-standardize")
    if reward.objective == "total" and reward.cost_target:
        what = "has no effect with --reward.objective total"
        raise refusal("--reward.cost-target", f"{reward.cost_target:g}", what, "use --reward.objective rate")
    if reward.outcome == "heldout" and reward.credit != "influence":
        what = f"tells nothing of single images with --reward.credit {reward.credit}"
        raise refusal("--reward.outcome", "'heldout'", what, "use --reward.credit influence")
    for name in ("outcome_images", "outcome_fraction"):
        value = getattr(reward, name)
        if reward.outcome == "batch" and value != getattr(RewardConfig(), name):
            what = "has no effect with --reward.outcome batch"
            raise refusal(flag(f"reward.{name}"), value, what, "use --reward.outcome heldout")


def _check_optimizer(config: TrainConfig) -> None:
    """What belongs to one of the optimizers, and what is said of layers by their names."""
    optim = config.optim
    if optim.nesterov and optim.optimizer == "adamw":
        what = "has no effect with --optim.optimizer adamw"
        raise refusal("--optim.nesterov", "True", what, "leave it out, or use sgd")
    if optim.sync_batch_norm and config.speed.compile not in ("none", "graph"):
        what = f"does not go with --speed.compile {config.speed.compile}, which fixes what a pass computes"
        raise refusal("--optim.sync-batch-norm", "True", what, "use --speed.compile none or graph")
    if optim.nesterov and optim.momentum == 0:
        raise refusal("--optim.nesterov", "True", "needs momentum", "give --optim.momentum 0.9, say")
    if optim.optimizer == "sgd" and optim.beta2 != OptimConfig().beta2:
        what = "has no effect with --optim.optimizer sgd"
        raise refusal("--optim.beta2", f"{optim.beta2:g}", what, "use --optim.optimizer adamw")
    for name in ("strategy_model", "teacher_model"):
        spelled = getattr(config, name)
        if spelled and "@" in spelled:
            what = "names weights, with which --model alone begins"
            raise refusal(flag(name), f"'{spelled}'", what, f"give {spelled.partition('@')[0]}")
    for name in ("freeze", "lr_factors"):
        given = getattr(optim, name)
        if given and traits_of(config.method).prunes:
            what = f"does not go with --method {config.method}, which learns which weights to keep"
            raise refusal(flag(f"optim.{name}"), " ".join(given), what, "leave it out")
    if config.reward.check_every and (optim.optimizer != "sgd" or optim.lr_factors):
        what = "compares credit with plain SGD steps, which --optim.optimizer or --optim.lr-factors replace"
        raise refusal("--reward.check-every", config.reward.check_every, what, "give 0")
    for rule in optim.lr_factors:
        try:
            parse_lr_factor(rule)
        except ValueError as error:
            raise UsageError(f"--optim.lr-factors: {error}; write it so") from error


def _check_optim(config: TrainConfig) -> None:
    optim = config.optim
    _check_optimizer(config)
    check_milestones("optim.milestones", optim.milestones)
    for name in ("restart_epochs", "restart_factor"):
        value = getattr(optim, name)
        if optim.schedule != "restarts" and value != getattr(OptimConfig(), name):
            what = f"has no effect with --optim.schedule {optim.schedule}"
            raise refusal(flag(f"optim.{name}"), f"{value:g}", what, "use --optim.schedule restarts")
    if optim.swa_start is not None and optim.ema_decay:
        what = f"and --optim.ema-decay {optim.ema_decay:g} are two averages of the weights"
        raise refusal("--optim.swa-start", f"{optim.swa_start:g}", what, "leave one of them out")
    if optim.swa_start is not None and optim.swa_start > config.epochs - 1:
        what, last = "leaves no epoch to average", f"give {config.epochs - 1} or less"
        raise refusal("--optim.swa-start", f"{optim.swa_start:g}", what, last)
    for factor in optim.lr_decay:
        check_bound("--optim.lr-decay", factor, _POSITIVE)
    if len(optim.lr_decay) not in (1, len(optim.milestones)):
        what = f"are {len(optim.lr_decay)} factors for {len(optim.milestones)} milestones"
        shown = " ".join(f"{factor:g}" for factor in optim.lr_decay)
        raise refusal("--optim.lr-decay", shown, what, "give one for each, or one for all")
    if optim.warmup_epochs >= config.epochs:
        shown = f"{optim.warmup_epochs:g}"
        raise refusal(
            "--optim.warmup-epochs", shown, "leaves no epoch after it", f"give less than {config.epochs}"
        )


def _check_speed(config: TrainConfig) -> None:
    speed = config.speed
    if speed.tf32 != "convolutions" and config.precision == "fp64":
        what = "has no effect with --precision fp64, which TF32 never replaces"
        raise refusal("--speed.tf32", f"'{speed.tf32}'", what, "leave it out")
    if speed.compile == "cudagraphs" and not speed.bucket:
        what = "records a CUDA graph for every number of images still attacked"
        raise refusal("--speed.compile", "'cudagraphs'", what, "add --speed.bucket 16, say")
    if speed.balance and config.strategy in ("fixed", "curriculum"):
        what = f"has no effect with --strategy {config.strategy}, where all images take equal steps"
        raise refusal("--speed.balance", "True", what, "leave it out")
    if speed.balance and traits_of(config.method).rule_reads != "nothing":
        what = f"has no effect with --method {config.method}, whose attack finds out its steps on the way"
        raise refusal("--speed.balance", "True", what, "leave it out")


def _check_test_steps(counts: tuple[int, ...]) -> None:
    option = "--evaluation.test-num-steps"
    for count in counts:
        check_bound(option, count, _COUNT)
        if counts.count(count) > 1:
            raise refusal(option, count, "stands twice", "give each number of steps once")


def _check_numerics(numerics: NumericsConfig) -> None:
    read = {"rollback_factor": ("rollback",), "max_faults": ("skip", "rollback")}
    for name, policies in read.items():
        value = getattr(numerics, name)
        if numerics.on_nan not in policies and value != getattr(NumericsConfig(), name):
            what = f"has no effect with --numerics.on-nan {numerics.on_nan}"
            raise refusal(flag(f"numerics.{name}"), value, what, f"use --numerics.on-nan {policies[-1]}")
