"""Writes the README's tables from the committed records, so that no number is typed by hand.

python -m benchmarks.tables.readme_tables          # rewrite README.md between its markers
python -m benchmarks.tables.readme_tables --check  # exit status 1 if it would change
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.tables.marked import put_blocks

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks" / "records" / "learning_curves_cifar10_cpu.json"
NAMES = {"fixed": "PGD-AT", "learned": "LAS-AT", "random": "random strategies"}
FIGURES = ("clean_acc", "robust_acc_pgd10", "robust_acc_pgd50")


def cifar10_table(record: dict) -> str:
    """Rows of mean ± standard deviation in percent, and what they were measured on."""
    first = next(iter(record["runs"].values()))[0]
    summary, manifest = first["summary"], first["manifest"]
    seeds = record["table"][0]["seeds"]
    lines = ["| measured | clean | PGD-10 | PGD-50 |", "|---|---|---|---|"]
    for row in record["table"]:
        cells = [f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in (row[key] for key in FIGURES)]
        lines.append("| " + " | ".join([NAMES[row["strategy"]], *cells]) + " |")
    command = " ".join(record["command"])
    lines += [
        "",
        f"CIFAR-10 re-encoded as JPEG (not comparable with published numbers), {summary['n_train']} "
        f"training and {summary['n_test']} test images, L-inf 8/255, a ResNet-18 of "
        f"{summary['parameters']:,} parameters, {summary['rounds']} rounds each, {seeds} seeds, "
        f"mean ± standard deviation in %. `{command}`, torch {manifest['packages']['torch']}, on a CPU; "
        "every epoch of every run is in `benchmarks/records/learning_curves_cifar10_cpu.json`.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    tables = {"cifar10": cifar10_table(json.loads(RECORD.read_text()))}
    sys.exit(put_blocks(ROOT / "README.md", tables, check="--check" in sys.argv[1:]))
