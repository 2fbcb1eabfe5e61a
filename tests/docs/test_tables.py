"""Every generated table and picture of README and docs is what the committed records say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.tables.__main__ import COMPARED, PAGES, main, stale
from benchmarks.tables.marked import markdown, put_blocks

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"bad-input"}  # tests/robustness/test_bad_input.py runs all its commands anyway


@pytest.mark.parametrize("name", [*PAGES, *COMPARED])
def test_pages_and_pictures_are_generated(name: str) -> None:
    assert not list(stale([name], check=True)), f"run python -m benchmarks.tables {name}"


def test_every_mark_of_every_page_has_its_table() -> None:
    marks = {
        str(page.relative_to(ROOT)): set(re.findall(r"<!-- (?!/)(.+?) -->", page.read_text()))
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    }
    made = {name: {mark for tables in PAGES[name] for mark in tables()} for name in PAGES}
    assert {name: found - ELSEWHERE for name, found in marks.items() if found} == made


def test_a_changed_table_is_noticed_and_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- /one -->\nafter\n")
    assert put_blocks(page, {"one": "new"}, check=True) == 1 and "old" in page.read_text()
    assert put_blocks(page, {"one": "new"}, check=False) == 0
    assert page.read_text() == "before\n<!-- one -->\nnew\n<!-- /one -->\nafter\n"
    assert put_blocks(page, {"one": "new"}, check=True) == 0
    with pytest.raises(ValueError, match=r"page\.md: the marks <!-- two -->"):
        put_blocks(page, {"two": "new"}, check=False)


def test_the_command_names_what_would_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("<!-- one -->\n<!-- /one -->\n")
    monkeypatch.setattr("benchmarks.tables.__main__.ROOT", tmp_path)
    monkeypatch.setitem(PAGES, "page.md", (lambda: {"one": markdown(["a", "b"], [[1, ""]], "told")},))
    assert main(["page.md", "--check"]) == 1 and "page.md" in capsys.readouterr().err
    assert main(["page.md"]) == main(["page.md", "--check"]) == 0
    assert (tmp_path / "page.md").read_text() == (
        "<!-- one -->\n| a | b |\n|---|---|\n| 1 |  |\n\ntold\n<!-- /one -->\n"
    )
    with pytest.raises(SystemExit, match=r"'other\.md' is not generated; choose from"):
        main(["other.md"])


def test_pictures_of_generated_pages_are_there() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for picture in re.findall(r"\((figures/\w+\.png)\)", page.read_text()):
            assert (ROOT / "docs" / picture).is_file(), f"{page.name}: {picture}"
