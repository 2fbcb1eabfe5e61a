"""Refuses settings that do not go with the training method."""

from __future__ import annotations

from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import flag
from lasat_ray.config.traits import methods_that, traits_of
from lasat_ray.config.units import COMPARING
from lasat_ray.errors import refusal
from lasat_ray.validation.grid import check_bound


def check_method(config: TrainConfig) -> None:
    """UsageError for the first setting that does not go with the method or its companions."""
    _check_teacher(config)
    _check_attack_of(config)
    check_restarts(config, ruled=traits_of(config.method).rule_reads != "nothing")
    _check_labels(config)
    _check_atas(config)
    _check_reuse(config)
    if config.new_head and config.init_from is None:
        what = "has no effect without --init-from, whose head it leaves out"
        raise refusal("--new-head", "True", what, "leave it out")
    if traits_of(config.method).prunes:
        _check_pruning(config)
    method, loss = config.method, config.loss
    if config.data.mixed_by:
        _check_mixing(config)
    if method == "cat" and config.data.val_fraction == 0:
        what = "leaves CAT no images to measure its strength by"
        raise refusal("--data.val-fraction", "0", what, "give 0.02, say")
    if loss.gairat_schedule == "linear" and loss.gairat_lambda_max is None:
        what = "comes down from --loss.gairat-lambda-max, which is not set"
        raise refusal("--loss.gairat-schedule", "'linear'", what, "give it, say 4")
    if loss.awp_warmup >= config.epochs:
        what = "leaves no epoch with perturbed weights"
        raise refusal("--loss.awp-warmup", loss.awp_warmup, what, f"give less than {config.epochs}")
    for name in ("fat_milestones", "gairat_milestones"):
        check_milestones(f"loss.{name}", getattr(loss, name))


def _check_mixing(config: TrainConfig) -> None:
    option, shown = config.data.mixed_by, "True" if config.data.cutmix else f"{config.data.mixup:g}"
    method, reward = config.method, config.reward
    if config.data.cutmix and config.data.mixup:
        raise refusal(option, shown, "stands beside --data.mixup", "mix images in one of the two ways")
    if traits_of(method).looks_first:
        what = f"mixes labels, but --method {method} forms what it trains with for images of one label"
        raise refusal(option, shown, what, "leave it out or take another method")
    if traits_of(method).rule_reads == "labels":
        what = f"mixes labels, but --method {method} asks whether an image is classified correctly"
        raise refusal(option, shown, what, "leave it out or take another method")
    if config.strategy in ("class-wise", "margin"):
        what = f"mixes labels, of which --strategy {config.strategy} reads one an image"
        raise refusal(option, shown, what, "leave it out or take another strategy")
    if config.attack.loss == "margin":
        what = "mixes labels, which a margin between one class and the others cannot read"
        raise refusal(option, shown, what, "use --attack.loss method")
    counts = reward.mode == "reference" or reward.ref_moves == "correct"
    if config.learns and counts:
        what = "mixes labels, but --reward.mode reference counts correct classifications"
        raise refusal(option, shown, what, "use --reward.mode paper --reward.ref-moves all")


def check_milestones(path: str, milestones: tuple[float, ...]) -> None:
    """UsageError where a setting's epochs do not increase from above 0."""
    if any(later <= earlier for earlier, later in zip((0.0, *milestones), milestones, strict=False)):
        shown = " ".join(f"{m:g}" for m in milestones)
        raise refusal(flag(path), shown, "does not increase from above 0", "give them in order, once each")


def _check_teacher(config: TrainConfig) -> None:
    method, teachers = config.method, methods_that(lambda traits: traits.companion == "frozen")
    if method in teachers and config.teacher is None:
        what = f"leaves --method {method} nobody to learn from"
        raise refusal("--teacher", "None", what, "name the run folder or checkpoint of a trained net")
    pairs = methods_that(lambda traits: traits.companions == 2)
    if method in pairs and config.robust_teacher is None:
        what = f"leaves --method {method} without its robust teacher"
        raise refusal("--robust-teacher", "None", what, "name the run folder or checkpoint of a robust net")
    if config.robust_teacher is not None and method not in pairs and ":" not in method:
        what = f"has no part in --method {method}"
        remedy = f"leave it out, or --method {' or '.join(pairs)}"
        raise refusal("--robust-teacher", f"'{config.robust_teacher}'", what, remedy)
    if config.teacher is not None and method not in teachers and ":" not in method:
        remedy = f"leave it out, or --method {' or '.join(teachers)}"
        raise refusal("--teacher", f"'{config.teacher}'", f"has no part in --method {method}", remedy)
    if config.teacher_model is not None and method != "lbgat" and ":" not in method:
        what = f"is trained by lbgat alone, not by --method {method}"
        raise refusal("--teacher-model", f"'{config.teacher_model}'", what, "leave it out")


def _check_labels(config: TrainConfig) -> None:
    method, loss = config.method, config.loss
    if loss.label_smoothing and (method == "ltd" or traits_of(method).companion_sees == "before"):
        what = f"has no effect with --method {method}, which forms its labels"
        raise refusal("--loss.label-smoothing", f"{loss.label_smoothing:g}", what, "leave it out")
    if loss.kd_plain + loss.kd_robust > 1:
        what = f"and --loss.kd-plain {loss.kd_plain:g} leave the true label less than nothing"
        raise refusal("--loss.kd-robust", f"{loss.kd_robust:g}", what, "let both sum to 1 or less")
    if loss.te_epochs is not None:
        check_milestones("loss.te_epochs", loss.te_epochs)
    for value in loss.adr_temperature:
        check_bound("--loss.adr-temperature", value, (lambda v: v > 0, "give temperatures above 0"))
    for value in loss.adr_trust:
        check_bound("--loss.adr-trust", value, (lambda v: 0 <= v <= 1, "give shares from 0 to 1"))


def _check_atas(config: TrainConfig) -> None:
    first, last = config.loss.atas_range
    if not 0 < first <= last:
        shown = f"{first:g} {last:g}"
        raise refusal("--loss.atas-range", shown, "is no range above 0", "give the shorter step first")


def _check_reuse(config: TrainConfig) -> None:
    """What a method whose attacks are earlier updates' gradients has no use for."""
    method, attack = config.method, config.attack
    if not traits_of(method).reuses:
        return
    told = f"has no effect with --method {method}, whose attacks are the updates' own gradients"
    if attack.norm != "linf":
        what = f"is not that of --method {method}, whose noise is kept in the L-inf ball"
        raise refusal("--attack.norm", f"'{attack.norm}'", what, "use linf")
    for name in ("loss", "start"):
        if (value := getattr(attack, name)) != "method":
            raise refusal(f"--attack.{name}", f"'{value}'", told, "leave it out")
    if attack.start_radius is not None:
        raise refusal("--attack.start-radius", f"{attack.start_radius:g}", told, "leave it out")
    if attack.momentum:
        raise refusal("--attack.momentum", f"{attack.momentum:g}", told, "leave it out")
    if attack.direction != "sign":
        raise refusal("--attack.direction", f"'{attack.direction}'", told, "leave it out")
    grid = {} if config.strategy == "fixed" else attack.grid
    anew = f"would vary an image anew in every replay of --method {method}, under noise of the one before"
    idle = dict.fromkeys(("start_radius", "attack_loss", "momentum", "direction"), told)
    for name, what in (idle | dict.fromkeys(("augmix", "erasing"), anew)).items():
        if name in grid:
            raise refusal("--attack.grid", f"'{name}'", what, "leave it out")
    if len(grid.get("num_steps", ())) > 1:
        what = f"has several values, but is how often --method {method} trains on each batch"
        raise refusal("--attack.grid", "'num_steps'", what, "give one value, for example num_steps=8")
    if config.speed.balance:
        raise refusal("--speed.balance", "True", told, "leave it out")


def check_restarts(config: TrainConfig, *, ruled: bool) -> None:
    """UsageError where several starts would change nothing, or where it is open which of them the method's
    rule, if it has one (``ruled``), has told of. Code from outside is known once it is loaded."""
    method, attack, traits = config.method, config.attack, traits_of(config.method)
    grid = {} if config.strategy == "fixed" else attack.grid
    if "restarts" in grid:
        option, shown = "--attack.grid", "'restarts'"
    elif attack.restarts > 1:
        option, shown = "--attack.restarts", str(attack.restarts)
    else:
        return
    if attack.start == "zero":
        what = "repeats the same attack with --attack.start zero"
        raise refusal(option, shown, what, "leave it out or use --attack.start uniform")
    if traits.reuses or not traits.attacks:
        raise refusal(option, shown, f"has no part in --method {method}", "leave it out")
    if ruled:
        what = f"does not go with --method {method}, whose rule follows one attack of each image"
        raise refusal(option, shown, what, "leave it out or take another method")


def _check_pruning(config: TrainConfig) -> None:
    method, loss = config.method, config.loss
    if config.init_from is None:
        what = f"leaves --method {method} nothing to prune"
        raise refusal("--init-from", "None", what, "name the run folder or checkpoint of a robust net")
    if loss.awp_gamma is not None:
        what = f"would move weights that --method {method} has pruned"
        raise refusal("--loss.awp-gamma", loss.awp_gamma, what, "leave it out")
    if config.learns and config.reward.lookahead == "copy":
        what = f"steps a copy that knows nothing of the pruning of --method {method}"
        raise refusal("--reward.lookahead", "'copy'", what, "use --reward.lookahead real")
    if config.epochs < 2 or (loss.hydra_epochs or 1) >= config.epochs:
        what = "leaves no epoch to fine-tune the kept weights in"
        raise refusal("--epochs", config.epochs, what, f"give more than {loss.hydra_epochs or 1}")


def _check_attack_of(config: TrainConfig) -> None:
    method, attack = config.method, config.attack
    if method == "dart" and attack.loss not in ("method", "ce"):
        what = "has no convergence criterion: DART's c_t is in units of cross-entropy"
        raise refusal("--attack.loss", f"'{attack.loss}'", what, "use ce or method")
    turned = attack.direction != "sign" or "direction" in attack.grid
    if turned and attack.norm == "l2":
        what = "has no effect with --attack.norm l2, whose steps go along the gradient"
        if attack.direction != "sign":
            raise refusal("--attack.direction", f"'{attack.direction}'", what, "leave it out")
        raise refusal("--attack.grid", "'direction'", what, "leave it out")
    if method == "dart" and attack.norm == "l2":
        what = "has no convergence criterion: DART's c_t is that of the L-inf ball"
        raise refusal("--attack.norm", "'l2'", what, "use linf")
    traits = traits_of(method)
    kind = traits.attack_loss if attack.loss == "method" else attack.loss
    if attack.start == "zero" and (kind in COMPARING or (kind == "own" and traits.needs_clean)):
        raised = "its own loss" if kind == "own" else kind
        what = f"never moves under an attack on {raised}, whose gradient is 0 at the clean image"
        raise refusal("--attack.start", "'zero'", what, "use uniform or normal")
    named = attack.start_radius is not None or "start_radius" in attack.grid
    if named and attack.start == "method" and traits.start.startswith("normal"):
        what = f"has no effect: --method {method} starts from a normal of its own size"
        if attack.start_radius is not None:
            raise refusal("--attack.start-radius", attack.start_radius, what, "add --attack.start uniform")
        raise refusal("--attack.grid", "'start_radius'", what, "add --attack.start uniform")
