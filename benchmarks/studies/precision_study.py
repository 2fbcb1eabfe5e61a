"""Does training in bf16 cost accuracy? The same runs in fp32 and in bf16, seed by seed.

    python -m benchmarks.studies.precision_study --dataset parquet:PATH_TO_CIFAR10 --jobs 2

PGD-AT and LAS-AT of a narrow ResNet-18 on 2,000 CIFAR-10 images. Each net is judged in its own precision.
Seed after seed; the record is written after each, so the command can be killed and repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.common import RECORDS, made_by, read_record, write_record
from benchmarks.studies.outcomes import Outcome, by_label, mean_std, paired, percent, slim, without_place
from benchmarks.studies.study import Judge, RunOptions, Trial, seed_after_seed
from benchmarks.tables.marked import markdown

RECORD = "precision_cifar10"
FLAGS = ("--recipe", "cifar10-cpu", "--speed.channels-last", "--evaluation.test-num-steps", "10")
STRATEGIES = {"fixed": "PGD-AT", "learned": "LAS-AT, k = 4"}
PRECISIONS = ("fp32", "bf16")
JUDGE = Judge(attacks=("clean", "pgd-50"))


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """What to run."""

    dataset: str | None = None
    """As for lasat_ray.train, for example parquet:PATH; None takes the recipe's."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    out: Path = Path("runs/precision")
    """Folder of the runs."""


def trials(seed: int, dataset: str | None) -> list[Trial]:
    """The runs of one seed."""
    shared = (*FLAGS, *(("--dataset", dataset) if dataset else ()))
    return [
        Trial(
            label=f"{strategy}-{precision}",
            flags=(*shared, "--strategy", strategy, "--precision", precision),
            seed=seed,
        )
        for strategy in STRATEGIES
        for precision in PRECISIONS
    ]


def table(runs: Sequence[Outcome]) -> str:
    """Markdown: both precisions, and their difference seed by seed with its 95 % interval."""
    rows = by_label(runs)
    lines: list[list[object]] = []
    for strategy, title in STRATEGIES.items():
        ours = {precision: rows.get(f"{strategy}-{precision}", []) for precision in PRECISIONS}
        for precision, found in ours.items():
            figures = [mean_std(percent(found, attack)) for attack in JUDGE.attacks]
            lines.append([title, precision, *figures, len(found)])
        gaps = [paired(ours["bf16"], ours["fp32"], attack) for attack in JUDGE.attacks]
        told = [f"{g['difference']:+.1f} ({g['low']:+.1f} to {g['high']:+.1f})" for g in gaps]
        lines.append([title, "bf16 less fp32", *told, gaps[0]["n"]])
    summary, n = runs[0]["summary"], runs[0]["evaluation"]["pgd-50"]["n"]
    caption = (
        f"CIFAR-10 re-encoded as JPEG, {summary['n_train']:,} training images, a ResNet-18 of "
        f"{summary['parameters']:,} parameters, {summary['rounds']} rounds of 64 images; the best epoch on "
        f"validation, {n:,} test images. Mean ± standard deviation over seeds in %; differences with their "
        "95 % interval (paired, Student)."
    )
    return markdown(["training", "precision", "clean", "PGD-50", "seeds"], lines, caption)


def tables() -> dict[str, str]:
    """Mark -> table."""
    return {"precision": table(read_record(RECORD)["runs"])}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    more = ("--dataset", without_place(options.dataset)) if options.dataset else ()
    seeds = [trials(seed, options.dataset) for seed in options.seeds]
    for outcomes in seed_after_seed(seeds, JUDGE, options, RECORDS / f"{RECORD}.json"):
        made = made_by("benchmarks.studies.precision_study", *more)
        write_record(RECORD, {**made, "flags": FLAGS, "runs": [slim(outcome) for outcome in outcomes]})


if __name__ == "__main__":
    main()
