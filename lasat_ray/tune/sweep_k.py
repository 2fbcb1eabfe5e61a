"""``python -m lasat_ray.tune.sweep_k``: how often the strategy net learns (Table 1).

Trials run one at a time unless told otherwise, since their seconds are part of the result; the counted
forward passes beside them do not depend on what else the machine did.
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
from lasat_ray.errors import UsageError
from lasat_ray.recipes.compared import compared
from lasat_ray.tune.options import Asked, check_distinct, check_seeds, check_untouched, parse_sweep
from lasat_ray.tune.trial import Trial, Trials

DESCRIPTION = "Sweep of k, the rounds between two updates of the strategy net (LAS-AT, Table 1)."
COLUMNS = ("clean", "robust", "seconds", "relative_seconds", "relative_passes", "updates")


@dataclass(frozen=True, kw_only=True)
class SweepK:
    """Which update intervals k are compared, on which seeds."""

    ks: tuple[int, ...] = (1, 10, 20, 40, 60)
    """Values of k; PGD-AT, the same run with the fixed attack, is always there to compare with."""
    seeds: tuple[int, ...] = (0,)
    """Every row is trained once with each."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit status 0, 1 (run time, or a trial failed) or 2 (usage)."""
    return run_command(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: Sequence[str]) -> int:
    return carry_out(parse_sweep(argv, "sweep_k", SweepK, DESCRIPTION), make_console())


def carry_out(asked: Asked, console: Console) -> int:
    """Run the sweep, write and print its tables; exit status 1 where a trial failed."""
    sweep = sweep_of(asked)
    from lasat_ray.tune.figures import (
        draw_k,  # late: torch, Ray and Matplotlib; --help and bad options need none
    )
    from lasat_ray.tune.results import report
    from lasat_ray.tune.run import finish, run_sweep

    outcomes = run_sweep(asked, sweep, console)
    if outcomes is None:
        return 0
    trials = sweep(outcomes)
    base = base_row(asked.config)
    report(asked, trials, outcomes, console, title="Table 1: k", columns=COLUMNS, base=base, draw=draw_k)
    return finish(asked, trials, outcomes, console)


def base_row(config: TrainConfig) -> str:
    """How the row with the fixed attack is called."""
    return "PGD-AT" if config.method == "pgd-at" else f"{config.method}, fixed"


def sweep_of(asked: Asked) -> Trials:
    """Rows seed by seed, so that the rows of one seed lie close in time and compare well."""
    settings: SweepK = asked.settings
    check_seeds(settings.seeds)
    check_distinct("--ks", settings.ks)
    remedy = "the sweep sets it; see --ks and --seeds"
    check_untouched(asked.config, ("update_interval", "strategy", "seed"), remedy)
    if not settings.ks or min(settings.ks) < 1:
        raise UsageError(f"--ks: {list(settings.ks)} is out of range; give whole numbers of 1 or more")
    if asked.run.asha and len(settings.seeds) < 2:
        raise UsageError(
            "--asha: the first seed is timed and never stopped; give more --seeds, or leave it out"
        )
    trials = []
    for seed in settings.seeds:
        base = dataclasses.replace(asked.config, seed=seed, strategy="learned")
        timed = not asked.run.asha or seed == settings.seeds[0]
        fixed = compared(base, base.method)
        trials.append(Trial(row=base_row(base), config=fixed, timed=True))
        for k in settings.ks:
            config = dataclasses.replace(base, update_interval=k)
            trials.append(Trial(row=f"k={k}", config=config, timed=timed))
    return lambda outcomes: trials


if __name__ == "__main__":
    sys.exit(main())
