"""The table of cases on users' data is whole, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows() -> list[list[str]]:
    page = (ROOT / "docs" / "reliability.md").read_text()
    section = page.partition("## Cases on users' data")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| \d", line)]


def test_every_case_stands_once_in_its_order() -> None:
    assert [int(row[0]) for row in rows()] == list(range(1, 32))
    assert all(len(row) == 5 and all(row) for row in rows())


def test_every_case_that_is_mended_names_tests_that_exist() -> None:
    for number, _, _, now, named in rows():
        found = re.findall(r"`(tests/\S+\.py)::(\w+)`", named)
        assert found or now.endswith("open"), f"case {number} names no test"
        for file, function in found:
            tree = ast.parse((ROOT / file).read_text())
            names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert function in names, f"case {number}: {file} has no {function}"
