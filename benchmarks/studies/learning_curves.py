"""Learning curves of PGD-AT and LAS-AT side by side, several seeds, as committed data.

    python -m benchmarks.studies.learning_curves --dataset parquet:PATH_TO_CIFAR10 --out runs/curves

One process a run (``--jobs`` at a time, one thread each); finished runs are kept, unfinished ones
continue, so the command can be killed and repeated. The record holds every epoch of every run.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from benchmarks.studies.outcomes import without_place

RECORDS = Path(__file__).parents[1] / "records"
KEPT = ("train_seconds", "val_clean_acc", "val_robust_acc_pgd10", "lr")


@dataclass(frozen=True, kw_only=True)
class Options:
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
    record: str = "learning_curves_cifar10_cpu.json"
    """Name of the record under benchmarks/records."""
    jobs: int = 2
    """Runs at a time."""
    extra: tuple[str, ...] = field(default_factory=tuple)
    """More flags for every run, for example --epochs=2."""


def train(options: Options, strategy: str, seed: int) -> Path:
    """Run or continue one training in a process of its own; returns its folder."""
    folder = options.out / f"{strategy}-s{seed}"
    command = [sys.executable, "-m", "lasat_ray.train"]
    if folder.exists():
        command += ["--resume", str(folder)]
    else:
        command += ["--recipe", options.recipe, "--dataset", options.dataset, "--strategy", strategy]
        command += ["--seed", str(seed), "--out", str(folder), *options.extra]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return folder


def read(folder: Path) -> dict[str, Any]:
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
        for key in ("clean_acc", "robust_acc_pgd10", "robust_acc_pgd50"):
            values = [100 * run["summary"][key] for run in seeds]
            row[key] = [round(statistics.mean(values), 2), round(statistics.stdev(values), 2)]
        row["train_seconds"] = round(statistics.mean(run["summary"]["train_seconds"] for run in seeds))
        rows.append(row)
    return rows


def command_line(options: Options) -> list[str]:
    """The command without the path where one machine keeps its data."""
    told = [word.replace(options.dataset, without_place(options.dataset)) for word in sys.argv[1:]]
    return ["benchmarks/studies/learning_curves.py", *told]


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    jobs = [(strategy, seed) for seed in options.seeds for strategy in options.strategies]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        folders = list(pool.map(lambda job: train(options, *job), jobs))
    runs: dict[str, list[dict[str, Any]]] = {strategy: [] for strategy in options.strategies}
    for (strategy, _), folder in zip(jobs, folders, strict=True):
        runs[strategy].append(read(folder))
    record = {"command": command_line(options), "table": table(runs), "runs": runs}
    RECORDS.mkdir(exist_ok=True)
    (RECORDS / options.record).write_text(json.dumps(record, indent=1) + "\n")
    for row in record["table"]:
        print(row)


if __name__ == "__main__":
    main()
