"""How right each credit is: its correlation with what leaving images out of an update really does.

python -m benchmarks.studies.credit_check --out runs/credit-check  # trains or goes on, writes the record
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.common import made_by, read_record, write_record
from benchmarks.studies.study import Judge, RunOptions, Trial, outcomes_of
from benchmarks.tables.marked import markdown

RECORD = "credit_check_digits"
NETS = {"without BatchNorm": "tiny_cnn", "with BatchNorm": "tiny_cnn_bn"}
CREDITS: dict[str, tuple[str, ...]] = {
    "influence": (),
    "influence, outcome held out": ("--reward.outcome", "heldout"),
    "image": (),
}
"""Credit, and where its outcome is measured -> what asks for it beside ``--reward.credit``."""
_NETS = ("--strategy-model", "tiny_cnn", "--model")
FLAGS = (
    *("--recipe", "digits", "--learner", "reinforce", "--epochs", "12"),
    *("--evaluation.every", "4", "--reward.check-every", "3"),
)


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """What to run."""

    out: Path = Path("runs/credit-check")
    """Folder of the runs."""
    seeds: int = 3
    """Seeds 0 to this."""
    credits: tuple[str, ...] = tuple(CREDITS)
    """Which; the record keeps the others as they are."""


def trials(options: Options) -> list[Trial]:
    return [
        Trial(
            label=f"{credit} {net}",
            flags=(*FLAGS, *_NETS, net, "--reward.credit", credit.partition(",")[0], *CREDITS[credit]),
            seed=seed,
        )
        for seed in range(options.seeds)
        for net in NETS.values()
        for credit in options.credits
    ]


def correlations(folder: Path) -> list[float]:
    """The run's checks, in the order of the rounds."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [round(r["credit_correlation"], 4) for r in records if "credit_correlation" in r]


def tables() -> dict[str, str]:
    """A row per credit and net; median and extremes over rounds and seeds."""
    runs, rows = read_record(RECORD)["runs"], []
    for credit in CREDITS:
        for told, net in NETS.items():
            found = [c for run in runs if run["label"] == f"{credit} {net}" for c in run["correlations"]]
            figures = [f"{f(found):.2f}" for f in (statistics.median, min, max)]
            name, _, where = credit.partition(",")
            rows.append([f"`{name}`{',' if where else ''}{where}", told, *figures, len(found)])
    return {"check": markdown(["credit", "net", "median", "lowest", "highest", "checks"], rows)}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    runs: list[dict[str, Any]] = []
    for outcome in outcomes_of(trials(options), Judge(attacks=("clean",)), options):
        label, seed = outcome["trial"]["label"], outcome["trial"]["seed"]
        found = correlations(options.out / f"{label}-s{seed}")
        runs.append({"label": label, "seed": seed, "correlations": found})
    ran = {run["label"] for run in runs}
    runs = [*(run for run in read_record(RECORD)["runs"] if run["label"] not in ran), *runs]
    write_record(RECORD, {**made_by("benchmarks.studies.credit_check"), "flags": FLAGS, "runs": runs})


if __name__ == "__main__":
    main()
