"""Learning curves of PGD-AT and LAS-AT side by side, several seeds, as committed data.

    python -m benchmarks.studies.learning_curves --dataset parquet:PATH_TO_CIFAR10 --jobs 2

Finished runs are kept, unfinished ones continue, so the command can be killed and repeated. The record holds
every epoch of every run.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.common import read_record, write_record
from benchmarks.studies.outcomes import without_place
from benchmarks.studies.study import Judge, RunOptions, Trial, outcomes_of
from benchmarks.tables.marked import markdown

RECORD = "learning_curves_cifar10_cpu"
KEPT = ("train_seconds", "val_clean_acc", "val_robust_acc_pgd10", "lr")
FIGURES = ("clean_acc", "robust_acc_pgd10", "robust_acc_pgd50")
NAMES = {"fixed": "PGD-AT", "learned": "LAS-AT", "random": "random strategies"}


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """What to train and where to write."""

    dataset: str = "digits"
    """As for lasat_ray.train, for example parquet:PATH."""
    recipe: str = "cifar10-cpu"
    """Settings of both methods."""
    seeds: tuple[int, ...] = (0, 1, 2)
    strategies: tuple[str, ...] = ("fixed", "learned")
    """fixed is PGD-AT, learned is LAS-AT; random is a control."""
    out: Path = Path("runs/learning-curves")
    """Folder of the runs."""
    record: str = RECORD
    """Name of the file in benchmarks/records."""
    extra: tuple[str, ...] = ()
    """More flags for every run, for example --epochs=2."""


def curves(folder: Path) -> dict[str, Any]:
    """One run as data: its curve, its summary, what it ran on."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [r for r in records if r["kind"] == "epoch"]
    rounds = [r for r in records if r["kind"] == "round"]
    summary = json.loads((folder / "summary.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    for place in ("run", "command", "platform"):  # paths of one machine; the record's command repeats all
        manifest.pop(place, None)
    return {
        "summary": summary,
        "manifest": manifest,
        "epochs": [{"epoch": r["epoch"], **{k: r[k] for k in KEPT if k in r}} for r in epochs],
        "mean_eps": [round(r["eps"], 5) for r in rounds],
        "train_adv_acc": [round(r["adv_correct"], 4) for r in rounds],
    }


def table(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of the test figures, in percent."""
    rows = []
    for strategy, seeds in runs.items():
        row: dict[str, Any] = {"strategy": strategy, "seeds": len(seeds)}
        for key in FIGURES:
            values = [100 * run["summary"][key] for run in seeds]
            row[key] = [round(statistics.mean(values), 2), round(statistics.stdev(values), 2)]
        row["train_seconds"] = round(statistics.mean(run["summary"]["train_seconds"] for run in seeds))
        rows.append(row)
    return rows


def tables() -> dict[str, str]:
    """Rows of mean ± standard deviation in percent, and what they were measured on."""
    record = read_record(RECORD)
    first = next(iter(record["runs"].values()))[0]
    summary, manifest = first["summary"], first["manifest"]
    rows = [
        [
            NAMES[row["strategy"]],
            *(f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in map(row.get, FIGURES)),
        ]
        for row in record["table"]
    ]
    caption = (
        f"CIFAR-10 re-encoded as JPEG (not comparable with published numbers), {summary['n_train']} "
        f"training and {summary['n_test']} test images, L-inf 8/255, a ResNet-18 of "
        f"{summary['parameters']:,} parameters, {summary['rounds']} rounds each, "
        f"{record['table'][0]['seeds']} seeds, mean ± standard deviation in %. "
        f"`python -m {' '.join(record['command'])}`, torch {manifest['packages']['torch']}, on a CPU; "
        f"every epoch of every run is in `benchmarks/records/{RECORD}.json`."
    )
    return {"cifar10": markdown(["measured", "clean", "PGD-10", "PGD-50"], rows, caption)}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    shared = ("--recipe", options.recipe, "--dataset", options.dataset, *options.extra)
    trials = [
        Trial(label=strategy, flags=(*shared, "--strategy", strategy), seed=seed)
        for seed in options.seeds
        for strategy in options.strategies
    ]
    runs: dict[str, list[dict[str, Any]]] = {strategy: [] for strategy in options.strategies}
    for outcome in outcomes_of(trials, Judge(attacks=()), options):
        label, seed = outcome["trial"]["label"], outcome["trial"]["seed"]
        runs[label].append(curves(options.out / f"{label}-s{seed}"))
    words = [word.replace(options.dataset, without_place(options.dataset)) for word in sys.argv[1:]]
    command = ["benchmarks.studies.learning_curves", *words]
    write_record(options.record, {"command": command, "table": table(runs), "runs": runs})


if __name__ == "__main__":
    main()
