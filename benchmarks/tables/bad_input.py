"""What every command answers to bad input: a table of docs/reliability.md."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from benchmarks.tables.marked import markdown
from tests.robustness.cases.answers import Answer, answer, make_world
from tests.robustness.cases.bad_case import Bad
from tests.robustness.cases.bad_inputs import CASES


def table(answers: dict[str, list[tuple[Bad, Answer]]]) -> str:
    """Markdown: a table per group."""
    parts = [f"{sum(map(len, answers.values()))} cases."]
    for group, rows in answers.items():
        cells = [[f"`{case.command}`", case.given, given.line, str(given.status)] for case, given in rows]
        cells = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in cells]
        parts.append(f"### {group}\n\n" + markdown(["typed", "given", "answer", "status"], cells))
    return "\n\n".join(parts)


def tables() -> dict[str, str]:
    """Run every case in a folder of its own."""
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as scratch:
        world = Path(scratch) / "world"
        make_world(world)
        found = {
            group: [(case, answer(case, world, Path(scratch) / f"case-{next(numbers)}")) for case in cases]
            for group, cases in CASES.items()
        }
    return {"bad-input": table(found)}
