"""``python -m lasat_ray.tune.sweep_weights``: the reward's weights alpha (of L2) and beta (of L3).

``--preset table6`` are the four rows of Table 6; otherwise a grid, or Optuna's TPE for two objectives,
clean and robust accuracy on validation. The picture shows every pair and the Pareto front.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from rich.console import Console

from lasat_ray.cli.command import run_command
from lasat_ray.cli.streams import make_console
from lasat_ray.config import TrainConfig
from lasat_ray.errors import UsageError
from lasat_ray.tune.options import (
    Asked,
    check_distinct,
    check_seeds,
    check_untouched,
    check_unused,
    parse_sweep,
)
from lasat_ray.tune.trial import Outcomes, Trial, Trials

DESCRIPTION = "Sweep of the weights of the reward L1 + alpha L2 + beta L3 (LAS-AT, eq. 7 and Table 6)."
COLUMNS = ("clean", "robust", "val_clean", "val_robust", "front", "eps", "steps")


@dataclass(frozen=True, kw_only=True)
class SweepWeights:
    """Which pairs of alpha and beta are compared, on which seeds."""

    preset: Literal["table6"] | None = None
    """table6: L1; L1 + alpha L2; L1 + beta L3; all three, with the run's own alpha and beta."""
    search: Literal["grid", "optuna"] = "grid"
    """grid: all pairs of --alphas and --betas; optuna: --trials pairs between their ends."""
    alphas: tuple[float, ...] = (0.25, 1.0, 4.0)
    """Weights of L2."""
    betas: tuple[float, ...] = (0.25, 1.0, 4.0)
    """Weights of L3."""
    trials: int = 12
    """optuna: pairs to try; each is trained with every seed."""
    generation: int = 4
    """optuna: pairs proposed at a time; more can run at once, and each knows fewer results."""
    seeds: tuple[int, ...] = (0,)
    """Every pair is trained once with each."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit status 0, 1 (run time, or a trial failed) or 2 (usage)."""
    return run_command(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: Sequence[str]) -> int:
    return carry_out(parse_sweep(argv, "sweep_weights", SweepWeights, DESCRIPTION), make_console())


def carry_out(asked: Asked, console: Console) -> int:
    """Run the sweep, write and print its tables; exit status 1 where a trial failed."""
    sweep = sweep_of(asked)
    if asked.config.reward.credit == "influence" and not asked.settings.preset:
        told = "With --reward.credit influence only the ratio alpha : beta matters, and --reward.l1-weight."
        console.print(told, highlight=False, soft_wrap=True)
    # Late: torch, Ray and Matplotlib; --help and bad options need none.
    from lasat_ray.tune.figures import draw_weights
    from lasat_ray.tune.results import report
    from lasat_ray.tune.run import finish, run_sweep

    outcomes = run_sweep(asked, sweep, console)
    if outcomes is None:
        return 0
    trials = sweep(outcomes)
    title = "Table 6: parts of the reward" if asked.settings.preset else "Weights of the reward"
    report(asked, trials, outcomes, console, title=title, columns=COLUMNS, draw=draw_weights)
    return finish(asked, trials, outcomes, console)


def sweep_of(asked: Asked) -> Trials:
    """The rows: a fixed list, or Optuna's proposals."""
    settings, config = asked.settings, asked.config
    check_seeds(settings.seeds)
    remedy = "the sweep sets it; see --alphas, --betas and --seeds"
    check_untouched(config, ("strategy", "seed"), remedy)
    if settings.preset is None:
        check_untouched(config, ("reward.alpha", "reward.beta"), remedy)
    _check(settings)
    config = dataclasses.replace(config, strategy="learned")
    if settings.preset:
        return _fixed(config, settings.seeds, _table6(config))
    if settings.search == "grid":
        pairs = {f"alpha={a:g} beta={b:g}": (a, b) for a in settings.alphas for b in settings.betas}
        return _fixed(config, settings.seeds, pairs)
    return lambda outcomes: _optuna(config, settings, outcomes)


def _check(settings: SweepWeights) -> None:
    if settings.preset:
        unused = ("search", "alphas", "betas", "trials", "generation")
        check_unused(settings, unused, "with --preset, whose rows are fixed")
    elif settings.search == "grid":
        check_unused(
            settings, ("trials", "generation"), "in a grid, which has all pairs (see --search optuna)"
        )
    for option, values in (("--alphas", settings.alphas), ("--betas", settings.betas)):
        if not values or min(values) < 0:
            raise UsageError(f"{option}: {list(values)} is out of range; give weights of 0 or more")
        check_distinct(option, values)
    if settings.search == "optuna":
        for option, values in (("--alphas", settings.alphas), ("--betas", settings.betas)):
            if min(values) <= 0 or len(values) < 2:
                raise UsageError(f"{option}: {list(values)} spans no range; give two ends above 0 for optuna")
        if min(settings.trials, settings.generation) < 1:
            raise UsageError("--trials, --generation: give 1 or more")


def _table6(config: TrainConfig) -> dict[str, tuple[float, float]]:
    alpha, beta = config.reward.alpha, config.reward.beta
    if not alpha or not beta:
        raise UsageError("--preset: table6 needs weights to leave out; give --reward.alpha and .beta above 0")
    return {"L1": (0, 0), "L1+L2": (alpha, 0), "L1+L3": (0, beta), "L1+L2+L3": (alpha, beta)}


def _fixed(config: TrainConfig, seeds: Sequence[int], pairs: dict[str, tuple[float, float]]) -> Trials:
    trials = [_trial(config, row, *pair, seed) for seed in seeds for row, pair in pairs.items()]
    return lambda outcomes: trials


def _trial(config: TrainConfig, row: str, alpha: float, beta: float, seed: int) -> Trial:
    reward = dataclasses.replace(config.reward, alpha=float(alpha), beta=float(beta))
    changed = dataclasses.replace(config, reward=reward, seed=seed)
    return Trial(row=row, config=changed, info={"alpha": float(alpha), "beta": float(beta)})


def _optuna(config: TrainConfig, settings: SweepWeights, outcomes: Outcomes) -> list[Trial]:
    """Proposals generation by generation; a pair is as good as the mean over its seeds."""
    from optuna.distributions import FloatDistribution

    from lasat_ray.tune.search import propose

    ends = {"alpha": settings.alphas, "beta": settings.betas}
    spaces = {name: FloatDistribution(min(v), max(v), log=True) for name, v in ends.items()}
    trials: list[Trial] = []
    told: list[tuple[dict[str, float], list[float] | None]] = []
    while len(told) < settings.trials:
        count = min(settings.generation, settings.trials - len(told))
        points = propose(
            told,
            spaces,
            count,
            [config.seed, len(told)],
            directions=("maximize", "maximize"),
            startup=settings.generation,
        )
        for point in points:
            # Three digits: what the table shows is what was trained.
            point = {n: min(max(float(f"{v:.3g}"), min(ends[n])), max(ends[n])) for n, v in point.items()}
            row = f"alpha={point['alpha']:g} beta={point['beta']:g}"
            new = [_trial(config, row, point["alpha"], point["beta"], seed) for seed in settings.seeds]
            trials += new
            told.append((point, _values(new, outcomes)))
        if any(trial.name not in outcomes for trial in trials):
            break
    return trials


def _values(trials: Sequence[Trial], outcomes: Outcomes) -> list[float] | None:
    """Mean validation (clean, robust) accuracy over the seeds that have one; None if none has."""
    found = [outcomes[trial.name].best for trial in trials if trial.name in outcomes]
    values = [best for best in found if best is not None]
    return [fmean(value[n] for value in values) for n in (0, 1)] if values else None


if __name__ == "__main__":
    sys.exit(main())
