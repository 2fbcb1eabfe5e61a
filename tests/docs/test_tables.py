"""Every generated table and picture of README and docs is what the committed records say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tables.marked import put_blocks

ROOT = Path(__file__).parents[2]
GENERATORS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if "import put_blocks" in path.read_text()
)


@pytest.mark.parametrize("script", GENERATORS)
def test_tables_are_generated(script: str) -> None:
    command = [sys.executable, "-m", script, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"run python -m {script}\n{done.stderr}"


def test_a_changed_table_is_noticed_and_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- /one -->\nafter\n")
    assert put_blocks(page, {"one": "new"}, check=True) == 1 and "old" in page.read_text()
    assert put_blocks(page, {"one": "new"}, check=False) == 0
    assert page.read_text() == "before\n<!-- one -->\nnew\n<!-- /one -->\nafter\n"
    assert put_blocks(page, {"one": "new"}, check=True) == 0
    with pytest.raises(ValueError, match=r"page\.md: the marks <!-- two -->"):
        put_blocks(page, {"two": "new"}, check=False)


def test_pictures_of_generated_pages_are_there() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for picture in re.findall(r"\((figures/\w+\.png)\)", page.read_text()):
            assert (ROOT / "docs" / picture).is_file(), f"{page.name}: {picture}"
