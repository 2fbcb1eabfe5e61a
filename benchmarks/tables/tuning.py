"""Keeps finished sweeps as records, and makes the tables of docs/tuning.md from them.

python -m benchmarks.tables.tuning runs/sweep-k-1 sweep_k_digits  # keeps the sweep as a record, draws it
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

from benchmarks.common import RECORDS, ROOT, read_record
from lasat_ray.tune.figures import draw_k, draw_search, draw_weights
from lasat_ray.tune.results import to_markdown

PAGE = ROOT / "docs" / "tuning.md"
FIGURES = ROOT / "docs" / "figures"
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
    record = read_record(name)
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


def tables() -> dict[str, str]:
    """The block of every record that the page has marks for."""
    return {name: block(name) for name in re.findall(r"<!-- (\w+) -->", PAGE.read_text())}


if __name__ == "__main__":
    add(Path(sys.argv[1]), sys.argv[2])
