"""Every file, function and class that docs/architecture.md names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:lasat_ray|benchmarks|tests|docs)/[\w/.]*)(?::([\w.]+))?`", PAGE)))


def defined(body: list[ast.stmt], name: str) -> bool:
    """Whether a dotted name is a function, class or variable of a module or class."""
    first, _, rest = name.partition(".")
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == first:
            return not rest or defined(node.body, rest)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not rest and any(isinstance(target, ast.Name) and target.id == first for target in targets):
            return True
    return False


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_the_page_names_exists(file: str, name: str) -> None:
    path = ROOT / file
    assert path.exists()
    assert not name or defined(ast.parse(path.read_text(encoding="utf-8")).body, name), f"{file}: no {name}"


def test_names_are_found_and_missed() -> None:
    assert len(NAMED) > 60
    body = ast.parse("A: int = 1\nclass B:\n    def c(self): ...").body
    assert defined(body, "A") and defined(body, "B.c") and not defined(body, "B.d") and not defined(body, "c")


def test_every_dict_of_plug_ins_has_its_line() -> None:
    """The dicts that the registries of the reference page are made of."""
    for name in (
        "METHODS",
        "LEARNERS",
        "ATTACKS",
        "SOURCES",
        "MODELS",
        "RECIPES",
        "FIGURES",
        "FIELDS",
        "BOUNDS",
    ):
        assert f":{name}`" in PAGE, name
