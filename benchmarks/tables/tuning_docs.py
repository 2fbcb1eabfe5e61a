"""Keeps finished sweeps as records, and writes the tables of docs/tuning.md from them.

python -m benchmarks.tables.tuning_docs --add runs/sweep-k-1 sweep_k_digits  # record, picture, table
python -m benchmarks.tables.tuning_docs          # rewrite docs/tuning.md between its markers
python -m benchmarks.tables.tuning_docs --check  # exit status 1 if it would change
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from benchmarks.tables.marked import put_blocks
from lasat_ray.tune.figures import draw_k, draw_search, draw_weights
from lasat_ray.tune.results import to_markdown

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tuning.md"
RECORDS, FIGURES = ROOT / "benchmarks" / "records", ROOT / "docs" / "figures"
DRAW = {"sweep_k": draw_k, "sweep_weights": draw_weights, "search_strategy": draw_search}
_PLACES = ("--out", "--resume", "--max-concurrent")


def add(out: Path, name: str) -> None:
    """Copy results.json without what belongs to one machine, and draw its picture."""
    record = json.loads((out / "results.json").read_text())
    started = json.loads((out / "sweep.json").read_text())
    for fact in ("command", "commit", "dirty", "started", "packages", "python", "cpus"):
        record[fact] = started[fact]  # of the sweep, not of the process that wrote the tables
    record["command"] = _without_places(record["command"])
    record.pop("platform", None)
    for trial in record["trials"]:
        trial["place"].pop("host", None)
    head = {key: value for key, value in record.items() if key != "trials"}
    trials = ",\n".join(json.dumps(trial) for trial in record["trials"])
    text = json.dumps(head, indent=1)[:-2] + ',\n "trials": [\n' + trials + "\n]\n}\n"
    (RECORDS / f"{name}.json").write_text(text)
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / f"{name}.png").write_bytes(DRAW[record["definition"]["sweep"]](record))


def _without_places(command: list[str]) -> list[str]:
    words, kept = iter(command), []
    for word in words:
        if word in _PLACES:
            next(words)
        else:
            kept.append(word)
    return kept


def block(name: str) -> str:
    """Command, table, picture and what it was measured with."""
    record: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text())
    command = shlex.join(["python", f"tuning/{record['command'][0]}", *record["command"][1:]])
    versions = f"torch {record['packages']['torch']}, Ray {record['packages']['ray']}, CPU"
    return "\n".join(
        [
            f"`{command}`",
            "",
            to_markdown(record),
            f"{versions}; every trial is in `benchmarks/records/{name}.json`.",
            "",
            f"![{record['title']}](figures/{name}.png)",
        ]
    )


def main() -> int:
    words = sys.argv[1:]
    if words[:1] == ["--add"]:
        add(Path(words[1]), words[2])
    names = re.findall(r"<!-- (\w+) -->", PAGE.read_text())
    return put_blocks(PAGE, {name: block(name) for name in names}, check=words[:1] == ["--check"])


if __name__ == "__main__":
    sys.exit(main())
