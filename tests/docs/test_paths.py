"""Files and modules that the pages name are there, so that a reader can open or run them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from benchmarks.tables.packages import LEVELS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT)
    for page in [*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docs/**/*.md")]
    if page.name != "CHANGELOG.md"  # it tells of what was
)
MADE = {"docs/reports/digits/report.html"}  # by the command beside it


def missing(text: str) -> list[str]:
    """Paths and ``-m`` modules of the repository that ``text`` names and that are not there."""
    places = "benchmarks|deploy|docs|envs|examples|lasat_ray|tests|tuning"
    files = {name.rstrip("./") for name in re.findall(rf"(?<![\w/.:-])(?:{places})/[\w./-]+", text)}
    found = [name for name in files - MADE if not (ROOT / name).exists()]
    for module in set(re.findall(rf"-m ((?:{places})(?:\.\w+)+)", text)):
        place = ROOT / module.replace(".", "/")
        if not place.with_suffix(".py").is_file() and not (place / "__main__.py").is_file():
            found.append(module)
    return sorted(found)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_names_what_is_there(page: Path) -> None:
    assert not missing((ROOT / page).read_text(encoding="utf-8"))


def test_what_is_gone_is_found() -> None:
    text = "`benchmarks/learning_curves.py`, `python -m benchmarks.curves --out runs/x`, docs/methods.md"
    assert missing(text) == ["benchmarks.curves", "benchmarks/learning_curves.py"]


def test_the_order_in_readme_is_that_of_the_packages() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (chain,) = re.findall(r"(?s)package over package .*?: (.*?) → the commands", text)
    level = {name: n for n, names in enumerate(LEVELS) for name in names}
    steps = [[level[name] for name in re.findall(r"`(\w+)`", part)] for part in chain.split("→")]
    assert all(max(before) < min(after) for before, after in itertools.pairwise(steps)), steps
