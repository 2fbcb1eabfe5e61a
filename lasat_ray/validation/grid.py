"""Checks of budgets and of the grid that strategies are chosen from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lasat_ray.config import TrainConfig
from lasat_ray.config.traits import methods_that, traits_of
from lasat_ray.config.units import ATTACK_LOSSES, DIRECTIONS, format_budget
from lasat_ray.errors import refusal

Bound = tuple[Callable[[Any], bool], str]
"""(does a value fit, what to do where it does not)."""

NOT_NEGATIVE: Bound = (lambda v: v >= 0, "give 0 or more")
SHARE: Bound = (lambda v: 0 <= v <= 1, "give a number from 0 to 1")
_PART: Bound = (lambda v: 0 <= v < 1, "give shares of 0 or more and less than 1")
_WHOLE: Bound = (lambda v: v >= 1 and v == int(v), "give whole numbers of 1 or more")
_LOSS: Bound = (lambda v: v in range(len(ATTACK_LOSSES)), f"write some of {','.join(ATTACK_LOSSES)}")
_DIRECTION: Bound = (lambda v: v in range(len(DIRECTIONS)), f"write some of {','.join(DIRECTIONS)}")

# A pixel ends at 1; a Euclidean length of a whole image does not.
_LENGTHS: dict[str, dict[str, Bound]] = {
    "linf": {
        "eps": (lambda v: 0 < v <= 1, "give a budget above 0 and at most 1, for example 8/255"),
        "step_size": (lambda v: 0 < v <= 1, "give a step above 0 and at most 1, for example 2/255"),
        "start_radius": (lambda v: 0 <= v <= 1, "give a radius from 0 to 1, for example 8/255"),
    },
    "l2": {
        "eps": (lambda v: 0 < v <= 100, "give a budget above 0 and at most 100, for example 128/255"),
        "step_size": (lambda v: 0 < v <= 100, "give a step above 0 and at most 100, for example 16/255"),
        "start_radius": (lambda v: 0 <= v <= 100, "give a radius from 0 to 100, for example 128/255"),
    },
}
FIELDS: dict[str, Bound] = {
    "eps": _LENGTHS["linf"]["eps"],
    "num_steps": _WHOLE,
    "step_size": _LENGTHS["linf"]["step_size"],
    "start_radius": _LENGTHS["linf"]["start_radius"],
    "trades_beta": NOT_NEGATIVE,
    "attack_loss": _LOSS,
    "awp_gamma": NOT_NEGATIVE,
    "momentum": SHARE,
    "direction": _DIRECTION,
    "restarts": _WHOLE,
    "label_smoothing": _PART,
    "augmix": SHARE,
    "erasing": _PART,
}
"""Every field that a grid may name, with the bound of its values."""


def length_bounds(config: TrainConfig) -> dict[str, Bound]:
    """Setting -> bound of every budget, step and radius, which depend on the norm."""
    training, testing = _LENGTHS[config.attack.norm], _LENGTHS[config.evaluation.norm]
    return {
        **{f"attack.{name}": bound for name, bound in training.items()},
        **{f"reward.ref_{name}": training[name] for name in ("eps", "step_size")},
        **{f"evaluation.{name}": testing[name] for name in ("eps", "step_size")},
    }


def check_bound(option: str, value: float, bound: Bound, of: str = "") -> None:
    """Refuse a value outside its bound."""
    fits, remedy = bound
    if not fits(value):
        raise refusal(option, f"{of}{format_budget(value)}", "is out of range", remedy)


def check_grid(config: TrainConfig) -> None:
    """Refuse fields that do not exist or do nothing here, values out of range, and values given twice."""
    grid, option = config.attack.grid, "--attack.grid"
    bounds = {**FIELDS, **_LENGTHS[config.attack.norm]}
    for name, values in grid.items():
        if name not in bounds:
            raise refusal(option, f"'{name}'", "is not a field", f"choose from: {', '.join(bounds)}")
        if not values:
            raise refusal(option, f"'{name}'", "has no values", f"give at least one or leave {name} out")
        for value in values:
            check_bound(option, value, bounds[name], of=f"{name}=")
        if len(set(values)) < len(values) and config.strategy != "curriculum":  # there it lasts longer
            twice = next(format_budget(v) for v in values if values.count(v) > 1)
            raise refusal(option, f"{name}={twice}", "stands twice", "give each value once")
    if config.strategy != "fixed":
        _check_use(config, option)


def _check_use(config: TrainConfig, option: str) -> None:
    """Refuse a grid, or fields of it, that would change nothing."""
    grid, attack, method = config.attack.grid, config.attack, config.method
    if not grid:
        remedy = "give one such as 'eps=3..15/255 num_steps=3..14', or --strategy fixed"
        raise refusal(option, "''", f"leaves a {config.strategy} strategy nothing to choose", remedy)
    if "trades_beta" in grid and "trades_beta" not in traits_of(method).fields and ":" not in method:
        others = ", ".join(methods_that(lambda traits: "trades_beta" in traits.fields))
        remedy = f"leave trades_beta out, or --method {others}"
        raise refusal(option, "'trades_beta'", f"is no part of --method {method}", remedy)
    if "attack_loss" in grid and attack.loss != "method":
        what = f"and --attack.loss {attack.loss} both say what the attack raises"
        raise refusal(option, "'attack_loss'", what, "leave one of them out")
    if "attack_loss" in grid and method == "dart":
        what = "has no convergence criterion: DART's c_t is in units of cross-entropy"
        raise refusal(option, "'attack_loss'", what, "leave it out")
    if "start_radius" in grid and attack.start in ("normal", "zero"):
        what = f"has no effect with --attack.start {attack.start}"
        raise refusal(option, "'start_radius'", what, "leave it out")
    if "awp_gamma" in grid and config.loss.awp_gamma is not None:
        what = f"and --loss.awp-gamma {config.loss.awp_gamma:g} both say how far weights are perturbed"
        raise refusal(option, "'awp_gamma'", what, "leave one of them out")
    if "label_smoothing" in grid and config.loss.label_smoothing:
        given = f"--loss.label-smoothing {config.loss.label_smoothing:g}"
        what = f"and {given} both say how far labels are smoothed"
        raise refusal(option, "'label_smoothing'", what, "leave one of them out")
    if "label_smoothing" in grid and (method == "ltd" or traits_of(method).companion_sees == "before"):
        what = f"has no effect with --method {method}, which forms its labels"
        raise refusal(option, "'label_smoothing'", what, "leave it out")
    if "erasing" in grid and config.data.erasing:
        what = f"and --data.erasing {config.data.erasing:g} both hide a part of an image"
        raise refusal(option, "'erasing'", what, "leave one of them out")
    if "augmix" in grid and config.data.policy == "augmix":
        what = "and --data.policy augmix both say how far images are mixed"
        raise refusal(option, "'augmix'", what, "leave one of them out")
    if "awp_gamma" in grid and method == "hydra":
        raise refusal(option, "'awp_gamma'", "would move weights that hydra has pruned", "leave it out")
