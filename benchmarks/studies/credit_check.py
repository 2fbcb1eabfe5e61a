"""How right each credit is: its correlation with what leaving images out of an update really does.

python -m benchmarks.studies.credit_check --out runs/credit-check  # trains, or goes on; then writes the table
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.studies.outcomes import Outcome
from benchmarks.studies.study import Judge, StudyOptions, Trial, outcomes_of
from benchmarks.tables.marked import put_blocks

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks" / "records" / "credit_check_digits.json"
DOC = ROOT / "docs" / "strategy_learning.md"
NETS = {"without BatchNorm": "tiny_cnn", "with BatchNorm": "tiny_cnn_bn"}
CREDITS = ("influence", "image")
FLAGS = (
    *("--recipe", "digits", "--learner", "reinforce", "--epochs", "12"),
    *("--evaluation.every", "4", "--reward.check-every", "3"),
)


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """What to run."""

    out: Path = Path("runs/credit-check")
    """Folder of the runs."""
    seeds: int = 3
    """Seeds 0 to this."""


def trials(seeds: int) -> list[Trial]:
    return [
        Trial(
            label=f"{credit} {net}",
            flags=(*FLAGS, "--model", net, "--strategy-model", "tiny_cnn", "--reward.credit", credit),
            seed=seed,
        )
        for seed in range(seeds)
        for net in NETS.values()
        for credit in CREDITS
    ]


def correlations(folder: Path) -> list[float]:
    """The run's checks, in the order of the rounds."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [round(r["credit_correlation"], 4) for r in records if "credit_correlation" in r]


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line a credit and net; median and extremes over rounds and seeds."""
    lines = ["| credit | net | median | lowest | highest | checks |", "|---|---|---|---|---|---|"]
    for credit in CREDITS:
        for told, net in NETS.items():
            found = [c for run in runs if run["label"] == f"{credit} {net}" for c in run["correlations"]]
            figures = [f"{f(found):.2f}" for f in (statistics.median, min, max)]
            lines.append(f"| {' | '.join([f'`{credit}`', told, *figures, str(len(found))])} |")
    return "\n".join(lines)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.check:
        sys.exit(put_blocks(DOC, {"check": table(json.loads(RECORD.read_text())["runs"])}, check=True))
    if not options.render:
        write_record(outcomes_of(trials(options.seeds), Judge(attacks=("clean",)), options), options.out)
    put_blocks(DOC, {"check": table(json.loads(RECORD.read_text())["runs"])}, check=False)


def write_record(outcomes: Sequence[Outcome], out: Path) -> None:
    """The correlations of every run, and what made them."""
    from lasat_ray.runs.folder import provenance  # loads torch, which --check does without

    told = {name: provenance()[name] for name in ("commit", "dirty", "python", "packages")}
    names = [f"{o['trial']['label']}-s{o['trial']['seed']}" for o in outcomes]
    runs = [
        {**{k: o["trial"][k] for k in ("label", "seed")}, "correlations": correlations(out / name)}
        for o, name in zip(outcomes, names, strict=True)
    ]
    record = {"command": ["benchmarks/studies/credit_check.py"], **told, "flags": FLAGS, "runs": runs}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
