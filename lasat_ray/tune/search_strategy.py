"""``python -m lasat_ray.tune.search_strategy``: the learned strategy against a search (Figure 3).

Every contender may spend the same number of forward passes on training, ``--budget`` runs of PGD-AT:
the learned strategy and PGD-AT as one long run, the searches as many shorter ones of which the best on
validation is kept, population-based training as a population whose strategies change on the way.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from lasat_ray.cli.command import run_command
from lasat_ray.cli.streams import make_console
from lasat_ray.config import TrainConfig
from lasat_ray.errors import UsageError, check_least
from lasat_ray.recipes.compared import compared
from lasat_ray.tune.options import Asked, check_seeds, check_untouched, check_unused, parse_sweep
from lasat_ray.tune.trial import Outcomes, Trial, Trials

DESCRIPTION = "A learned strategy against searched ones at equal cost in forward passes (LAS-AT, Figure 3)."
CONTENDERS = ("learned", "fixed", "random", "tpe", "pbt")
COLUMNS = ("clean", "robust", "val_robust", "trials", "passes", "strategy")


@dataclass(frozen=True, kw_only=True)
class SearchStrategy:
    """Who competes, with what budget. ``--epochs`` is the length of one run of a search."""

    budget: int = 6
    """What each contender may spend, in runs of PGD-AT; also the size of the population."""
    contenders: tuple[str, ...] = CONTENDERS
    """Of learned, fixed (PGD-AT), random, tpe and pbt."""
    generation: int = 2
    """tpe: strategies proposed at a time; more can run at once, and each knows fewer results."""
    pbt_interval: int | None = None
    """pbt: epochs between two exchanges; None: a quarter of the run."""
    seeds: tuple[int, ...] = (0,)
    """Each is a contest of its own: searches and trainings are seeded with it."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit status 0, 1 (run time, or a trial failed) or 2 (usage)."""
    return run_command(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: Sequence[str]) -> int:
    return carry_out(parse_sweep(argv, "search_strategy", SearchStrategy, DESCRIPTION), make_console())


def carry_out(asked: Asked, console: Console) -> int:
    """Run the sweep, write and print its tables; exit status 1 where a trial failed."""
    sweep = sweep_of(asked)
    # Late: torch, Ray and Matplotlib; --help and bad options need none.
    from lasat_ray.tune.figures import draw_search
    from lasat_ray.tune.results import report
    from lasat_ray.tune.run import finish, run_sweep

    outcomes = run_sweep(asked, sweep, console)
    if outcomes is None:
        return 0
    trials = sweep(outcomes)
    title = "Figure 3: searched strategies at equal cost"
    report(asked, trials, outcomes, console, title=title, columns=COLUMNS, base="PGD-AT", draw=draw_search)
    return finish(asked, trials, outcomes, console)


def sweep_of(asked: Asked) -> Trials:
    """Return the sweep of all contests, one seed after the other."""
    settings, config = asked.settings, asked.config
    check_seeds(settings.seeds)
    check_untouched(config, ("strategy", "seed"), "the sweep sets it; see --contenders and --seeds")
    check_untouched(config, ("budget_passes", "budget_minutes"), "--budget sets it, in runs of PGD-AT")
    _check(settings, config)
    seeds = settings.seeds
    return lambda outcomes: [t for seed in seeds for t in _contest(config, settings, outcomes, seed)]


def _check(settings: SearchStrategy, config: TrainConfig) -> None:
    for name in settings.contenders:
        if name not in CONTENDERS:
            raise UsageError(f"--contenders: '{name}' is unknown; choose from: {', '.join(CONTENDERS)}")
    if not settings.contenders or len(set(settings.contenders)) < len(settings.contenders):
        raise UsageError("--contenders: is empty or names one twice; give each once")
    check_least({"budget": (1, settings.budget), "generation": (1, settings.generation)})
    if settings.pbt_interval is not None and not 1 <= settings.pbt_interval <= config.epochs:
        raise UsageError(
            f"--pbt-interval: {settings.pbt_interval} is out of range; give 1 to {config.epochs}"
        )
    for name, contender in (("generation", "tpe"), ("pbt_interval", "pbt")):
        if contender not in settings.contenders:
            check_unused(settings, (name,), f"without {contender} among the --contenders")
    if config.data.val_fraction == 0:
        raise UsageError("--data.val-fraction: 0 leaves a search nothing to choose by; give 0.1, say")


def _contest(config: TrainConfig, settings: SearchStrategy, outcomes: Outcomes, seed: int) -> list[Trial]:
    from lasat_ray.tune.search import epoch_cost, population, random_search, tpe_search

    config = dataclasses.replace(config, seed=seed, strategy="learned")
    fixed = compared(config, config.method)
    budget = settings.budget * config.epochs * epoch_cost(fixed)
    trials: list[Trial] = []
    for name in settings.contenders:
        if name == "learned":
            trials.append(Trial(row="learned", config=stretched(config, budget), timed=True))
        elif name == "fixed":
            trials.append(Trial(row="PGD-AT", config=stretched(fixed, budget), timed=True))
        elif name == "random":
            trials += random_search(config, seed, budget)
        elif name == "tpe":
            trials += tpe_search(config, seed, budget, outcomes, settings.generation)
        else:
            interval = settings.pbt_interval or max(1, config.epochs // 4)
            trials += population(config, seed, budget, outcomes, settings.budget, interval)
    return trials


def stretched(config: TrainConfig, budget: float) -> TrainConfig:
    """The run as long as ``budget`` allows, its learning-rate milestones in proportion."""
    from lasat_ray.tune.search import epoch_cost  # late: NumPy

    epochs = max(1, int(budget / epoch_cost(config) + 1e-9))
    share = epochs / config.epochs
    milestones = tuple(milestone * share for milestone in config.optim.milestones)
    optim = dataclasses.replace(
        config.optim, milestones=milestones, warmup_epochs=config.optim.warmup_epochs * share
    )
    return dataclasses.replace(config, epochs=epochs, optim=optim)


if __name__ == "__main__":
    sys.exit(main())
