"""Every case of ``cases/``: one line with field or file, value and remedy; nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.tables.bad_input import table
from benchmarks.tables.marked import put_blocks
from tests.robustness.cases.answers import Answer, answer, make_world
from tests.robustness.cases.bad_case import Bad
from tests.robustness.cases.bad_inputs import CASES

ALL = [case for cases in CASES.values() for case in cases]
Ask = Callable[[Bad], Answer]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """The answer to a case, which runs when it is first asked for."""
    folder, known = tmp_path_factory.mktemp("bad"), dict[int, Answer]()
    make_world(folder / "world")

    def ask(case: Bad) -> Answer:
        number = next(n for n, known_case in enumerate(ALL) if known_case is case)
        if number not in known:
            known[number] = answer(case, folder / "world", folder / f"case-{number}")
        return known[number]

    return ask


@pytest.mark.parametrize("case", ALL, ids=[f"{n} {case.command}" for n, case in enumerate(ALL)])
def test_bad_input_is_one_line_and_leaves_the_disk_as_it_was(case: Bad, ask: Ask) -> None:
    given = ask(case)
    assert given.stderr.startswith("lasat-ray: error: ") and given.stderr.count("\n") == 1, given.stderr
    assert case.told in given.line and given.status == case.status, given
    assert ";" in given.line and "a bug of ours" not in given.line
    assert not given.changed


def test_the_page_shows_what_the_commands_say(ask: Ask) -> None:
    assert len(ALL) >= 80
    text = table({group: [(case, ask(case)) for case in cases] for group, cases in CASES.items()})
    page = Path(__file__).parents[2] / "docs" / "reliability.md"
    told = "run python -m benchmarks.tables docs/reliability.md"
    assert put_blocks(page, {"bad-input": text}, check=True) == 0, told


def test_a_silent_command_and_a_trace_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    good = answer(Bad("lasat_ray.train --dry-run", ""), tmp_path / "world", tmp_path / "case-0")
    assert good == Answer(0, "", ())
    out = "lasat_ray.leaderboard --dataset cifar10 --out rows.md"
    assert answer(Bad(out, ""), tmp_path / "world", tmp_path / "case-1").changed == ("rows.md",)
