"""Does a learned strategy pay? Credits, weights and learners against constant and random strategies.

    python benchmarks/strategy_study.py front --out runs/study       # the clean-robust front
    python benchmarks/strategy_study.py learners --out runs/study    # every learner, with AutoAttack

``front``: constant strategies of several budgets draw the front that anything learned has to beat;
each credit is swept over the weight of L1 so that it is judged at its best. ``learners``: each
learner with each credit at the weight the front favours. Both write one record of all runs; killed
and repeated they go on. docs/strategy_learning.md is made from the records by study_report.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.study import Judge, Trial, run_study, slim

RECORDS = Path(__file__).parent / "records"
Rows = dict[str, tuple[str, ...]]
"""Label of a row -> its flags."""

DIGITS = (
    *("--recipe", "digits", "--model", "tiny_cnn_bn", "--strategy-model", "tiny_cnn"),
    *("--epochs", "15", "--evaluation.every", "5"),
)
LEARNED = ("-k", "2", "--policy.optimizer", "adam", "--policy.lr", "1e-3", "--policy.entropy-weight", "0.01")


def controls() -> Rows:
    """What a learned strategy has to beat: constants of several budgets, and chance."""
    fixed = {
        f"constant eps={eps}": ("--strategy", "fixed", "--attack.eps", str(eps))
        for eps in (0.1, 0.15, 0.2, 0.25, 0.3)
    }
    return {**fixed, "random": ("--strategy", "random")}


def credit_flags(credit: str, l1_weight: float) -> tuple[str, ...]:
    """A credit with its weight of L1, each on standardized terms where it allows that."""
    flags = [*LEARNED, "--reward.credit", credit, "--reward.l1-weight", str(l1_weight)]
    if credit == "batch":
        return (*flags, "--reward.no-standardize", "--policy.baseline", "running")
    return (*flags, "--reward.standardize", "--policy.baseline", "mean")


def front() -> Rows:
    """Each credit along the weight of L1, and influence along alpha : beta."""
    rows = controls()
    for credit, weights in {
        "influence": (0.0, 0.1, 0.2, 0.3, 1.0),
        "image": (0.0, 0.3, 1.0),
        "batch": (1.0,),
    }.items():
        rows |= {f"{credit} l1={w:g}": credit_flags(credit, w) for w in weights}
    for alpha, beta in ((1, 0), (0, 1)):
        flags = credit_flags("influence", 0.2)
        rows[f"influence l1=0.2 {alpha}:{beta}"] = (
            *flags,
            *("--reward.alpha", str(alpha), "--reward.beta", str(beta)),
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run."""

    study: tyro.conf.Positional[Literal["front"]]
    """Which list of rows."""
    out: Path = Path("runs/strategy-study")
    """Folder of the runs."""
    seeds: int = 5
    """Seeds 0 to this."""
    jobs: int = 1
    """Runs at a time, one thread each."""
    record: str = "strategy_front_digits.json"
    """File under benchmarks/records."""


def trials(rows: Rows, seeds: int) -> list[Trial]:
    """Seed by seed, so that a study cut short has every row."""
    return [
        Trial(label=label, flags=(*DIGITS, *flags), seed=seed)
        for seed in range(seeds)
        for label, flags in rows.items()
    ]


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    judge = Judge(attacks=("clean", "pgd-50"))
    found = run_study(trials(front(), options.seeds), judge, options.out, options.jobs)
    record = {"study": options.study, "runs": [slim(outcome) for outcome in found]}
    (RECORDS / options.record).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
