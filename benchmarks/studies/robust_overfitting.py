"""Robust overfitting, where it shows within minutes: what the best epoch had and the last one has left.

    python -m benchmarks.studies.small_images parquet:CIFAR10 cifar10_few.npz --train 1000 --test 10000
    python -m benchmarks.studies.robust_overfitting npz:cifar10_few.npz
    python -m benchmarks.tables docs/strategy_learning.md

500 images to train on and 500 that choose the best epoch, no augmentation, a multistep schedule over 100
epochs of PGD-AT or as many passes of another row (Rice et al. 2020 describe the effect). The record is
written after each run, so the command can be killed and repeated.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.common import RECORDS, made_by, read_record, write_record
from benchmarks.studies.outcomes import mean_std
from benchmarks.studies.study import Judge, RunOptions, Trial, run_study
from benchmarks.tables.marked import markdown

RECORD = "robust_overfitting"
PATIENCE = 5
"""Validated epochs without gain before --stop-on gain ends a run, its default."""
_FIXED = (
    *(
        "--recipe",
        "images-las-at",
        "--strategy",
        "fixed",
        "--attack.num-steps",
        "10",
        "--attack.step-size",
        "2/255",
    ),
    *("--evaluation.every", "2"),
)
# Their epochs cost a third of the passes.
_RATE = ("--recipe", "images-las-at-rate", "--evaluation.every", "6")
ROWS = {
    "pgd-at": _FIXED,
    "cutout": (*_FIXED, "--data.cutout", "8"),
    "average": (*_FIXED, "--optim.ema-decay", "0.99"),
    "heldout": _RATE,
    "batch": (*_RATE, "--reward.outcome", "batch"),
}
NAMES = {
    "pgd-at": "PGD-AT",
    "cutout": "PGD-AT, cutout of 8 pixels",
    "average": "PGD-AT, average of the weights (0.99)",
    "heldout": "learned, rate, outcome held out",
    "batch": "learned, rate, outcome on the batch",
}
SHARED = (
    *("--model", "small_cnn", "--batch-size", "64", "--epochs", "100", "--budget", "2300passes"),
    *("--optim.lr", "0.03", "--optim.schedule", "multistep", "--optim.milestones", "50", "75"),
    *("--data.val-fraction", "0.5", "--data.crop-padding", "0", "--data.no-flip", "--data.max-test", "500"),
    *("--evaluation.test-num-steps", "10"),
)
ATTACKS = ("clean", "pgd-50")


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """What to run."""

    dataset: tyro.conf.Positional[str]
    """Where the images lie; small_images makes the file."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    rows: tuple[str, ...] = tuple(ROWS)
    out: Path = Path("runs/robust_overfitting")


def judged(folder: Path, dataset: str) -> dict[str, dict[str, float]]:
    """Accuracies in [0,1] of the best and the last net on the whole test set; kept beside the run."""
    import lasat_ray

    file = folder / "best_and_last.json"
    if not file.is_file():
        found = {
            which: dict(
                lasat_ray.evaluate(folder, dataset, attacks=ATTACKS, which=which, chunk_size=500).accuracy
            )
            for which in ("best", "last")
        }
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def course(folder: Path) -> list[dict[str, float]]:
    """Every validated epoch: budget spent, accuracies, and since the one before the mean steps and gain and
    the present price; a price of 0 says that the running mean gain is not positive."""
    found, rounds = [], list[dict[str, Any]]()
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "round":
            rounds.append(record)
        if record["kind"] != "epoch" or "val_clean_acc" not in record:
            continue
        paid = [r for r in rounds if "price" in r]
        found.append(
            {
                "spent": record["budget_spent"],
                "clean": record["val_clean_acc"],
                "pgd-10": record["val_robust_acc_pgd10"],
                "steps": statistics.mean(r["num_steps"] for r in rounds),
                **(
                    {"gain": statistics.mean(r["gain"] for r in paid), "price": paid[-1]["price"]}
                    if paid
                    else {}
                ),
            }
        )
        rounds = []
    return [{name: round(value, 4) for name, value in epoch.items()} for epoch in found]


def stopped(epochs: Sequence[dict[str, float]]) -> int | None:
    """The place of the epoch at which --stop-on gain would have ended the run; None where it would not."""
    waited = 0
    for place, epoch in enumerate(epochs):
        if "price" in epoch:
            waited = 0 if epoch["price"] > 0 else waited + 1
        if waited >= PATIENCE:
            return place
    return None


def tables() -> dict[str, str]:
    """Best and last nets of every row, and what stopping on the gain would have kept."""
    runs = read_record(RECORD)["runs"]
    head = ["strategy", "clean, best", "PGD-50, best", "last", "lost", "steps", "gain ends", "left", "seeds"]
    lines = []
    for row in ROWS:
        found = [run for run in runs if run["label"] == row]
        if not found:
            continue
        of = {(net, a): [100 * run[net][a] for run in found] for net in ("best", "last") for a in ATTACKS}
        lost = [b - a for a, b in zip(of["best", "pgd-50"], of["last", "pgd-50"], strict=True)]
        steps = [[e["steps"] for e in run["course"]] for run in found]
        ends = [(run["course"], stopped(run["course"])) for run in found]
        over = [course[place] for course, place in ends if place is not None]
        learned = any("price" in run["course"][-1] for run in found)
        lines.append(
            [
                NAMES[row],
                *(mean_std(of[key]) for key in (("best", "clean"), ("best", "pgd-50"), ("last", "pgd-50"))),
                mean_std(lost),
                f"{statistics.mean(s[0] for s in steps):.1f} -> {statistics.mean(s[-1] for s in steps):.1f}",
                f"{len(over)} of {len(found)}" if learned else "",
                f"{100 * statistics.mean(1 - e['spent'] for e in over):.0f} %" if over else "",
                str(len(found)),
            ]
        )
    caption = (
        "CIFAR-10 re-encoded as JPEG and averaged to 16x16 pixels, 500 training and 500 validation images, "
        "small_cnn, 2,300 passes per training image; 10,000 test images, L-inf 8/255, the epoch that is best "
        "on validation and the last. Mean ± standard deviation in %; lost: the last net's PGD-50 less the "
        "best one's. Steps: at the first and the last validated epoch. Gain ends: runs that `--stop-on gain` "
        "would have ended, and the mean share of the budget that was left then."
    )
    return {"robust overfitting": markdown(head, lines, caption)}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    shared = (*SHARED, "--dataset", options.dataset)
    before = read_record(RECORD)["runs"] if (RECORDS / f"{RECORD}.json").is_file() else []
    runs = {(run["label"], run["seed"]): run for run in before}
    for seed, row in itertools.product(options.seeds, options.rows):
        if (row, seed) in runs:
            continue
        trial = Trial(label=row, flags=(*shared, *ROWS[row]), seed=seed)
        (outcome,) = run_study([trial], Judge(attacks=()), options.out, options.jobs)
        folder = options.out / trial.name
        told = {"rounds": outcome["summary"]["rounds"], "passes": outcome["summary"]["passes_per_image"]}
        found = {
            "label": row,
            "seed": seed,
            **told,
            **judged(folder, options.dataset),
            "course": course(folder),
        }
        runs[row, seed] = found
        write_record(
            RECORD, {**made_by("benchmarks.studies.robust_overfitting"), "runs": list(runs.values())}
        )


if __name__ == "__main__":
    main()
