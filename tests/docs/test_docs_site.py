"""The documentation builds without a warning, and every page of it stands in the navigation."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from lasat_ray.errors import install

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


def test_no_page_example_or_message_installs_a_package_that_is_not_published():
    places = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    places += [place for folder in ("lasat_ray", "examples") for place in (ROOT / folder).rglob("*.*")]
    texts = {place: place.read_text() for place in places if place.suffix in (".py", ".md", ".ipynb")}
    assert not [place for place, text in texts.items() if "install lasat-ray" in text.replace("'", "")]
    index = texts[ROOT / "docs" / "index.md"]
    assert "pip install ." in index.partition("## A first run")[0]


def test_every_extra_that_is_named_is_one():
    """In messages by ``errors.install``, on pages and in examples as ``'.[NAME]'``."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    code = "".join(place.read_text() for place in (ROOT / "lasat_ray").rglob("*.py"))
    told = set(re.findall(r"install\(['\"](\w+)['\"]\)", code))
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    for page in pages:
        for names in re.findall(r"'\.\[([\w,]+)\]'", page.read_text()):
            told |= set(names.split(","))
    assert {"corruptions", "onnx", "sb3", "timm", "wandb"} <= told <= extras.keys()
    assert install("sb3") == "pip install '.[sb3]' in a clone of lasat-ray"


def test_every_page_stands_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert pages and not [page for page in pages if page not in nav]
