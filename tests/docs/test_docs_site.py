"""The documentation builds without a warning, and every page of it stands in the navigation."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    find_spec("mkdocs") is None or find_spec("mkdocstrings") is None, reason="needs the extra docs"
)
def test_the_site_builds_in_strict_mode(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    for page, code in (("attack", "worst_loss"), ("data", "mgrid"), ("method", "paired")):
        assert code in (tmp_path / "own" / page / "index.html").read_text()  # the file, not its name
    assert "Where the passes of a round go" in (tmp_path / "reference" / "cost" / "index.html").read_text()


def test_no_page_installs_a_package_that_is_not_published():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    told = [page.name for page in pages if "install lasat-ray" in page.read_text().replace("'", "")]
    assert (
        not told
        and "pip install ." in (ROOT / "docs" / "index.md").read_text().partition("## A first run")[0]
    )


def test_every_page_stands_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert pages and not [page for page in pages if page not in nav]
