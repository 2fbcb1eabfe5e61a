"""Every shell and Python block of README, CONTRIBUTING and the documentation runs, as it stands there.

Blocks of a page run in order, in one folder of their own that holds what pages begin with: the run of
docs/index.md, a second seed of it, somebody's images; those of Python share their names. A block with a title
is a file. ``text`` blocks are no commands: output, calls with placeholders, what needs hours, a cluster or
a GPU.
"""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', flags=re.S | re.M)
SNIPPET = re.compile(r'^--8<-- "(.+)"$', flags=re.M)
NEEDS_GPU = "--device cuda"
FIRST_RUN = "python -m lasat_ray.train --epochs 2 --out runs/first"


@dataclass(frozen=True)
class Block:
    page: str
    language: str
    title: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    name = str(page.relative_to(ROOT))
    return [
        Block(name, language, title, SNIPPET.sub(lambda m: (ROOT / m[1]).read_text(), text))
        for language, title, text in FENCE.findall(page.read_text())
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [block for block in BLOCKS if block.language in ("bash", "python")]
ON_RAY = {block.page for block in RUN if "--num-workers" in block.text or "tuning." in block.text}
"""Pages that start Ray; all their blocks go together, since later ones need what earlier ones made."""


def marked(block: Block) -> object:
    """The block as a test of its own, with Ray's mark where its page needs that."""
    marks = [pytest.mark.ray] if block.page in ON_RAY else []
    return pytest.param(block, id=f"{block.page}:{block.text[:50]}", marks=marks)


@pytest.fixture(scope="module")
def first_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What docs/index.md trains, and the same with another seed."""
    root = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_line(FIRST_RUN, patch)
        run_line("python -m lasat_ray.train --epochs 1 --seed 1 --out runs/second", patch)
    return root / "runs"


@pytest.fixture(scope="module")
def folders() -> dict[str, Path]:
    return {}


@pytest.fixture(scope="module")
def namespaces() -> dict[str, dict[str, object]]:
    """The names that the Python blocks of each page have made so far."""
    return {}


@pytest.fixture
def folder(
    request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The page's folder, made at its first block."""
    page = request.node.callspec.params["block"].page
    if page not in folders:
        path = folders[page] = tmp_path_factory.mktemp("page")
        shutil.copytree(ROOT / "examples", path / "examples")
        begins_without = FIRST_RUN in (ROOT / page).read_text()
        if "runs/first" in (ROOT / page).read_text() and not begins_without:
            shutil.copytree(request.getfixturevalue("first_runs"), path / "runs")
        put_images(path)
    return folders[page]


def put_images(path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 6)):
        for name in ("cat", "dog"):
            (path / "my_images" / part / name).mkdir(parents=True)
            for n in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path / "my_images" / part / name / f"{n}.png")
    Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path / "my_digit.png")


def run_line(line: str, patch: pytest.MonkeyPatch) -> None:
    """One command, in this process: starting another costs more than most of them."""
    words = shlex.split(line)
    if words[0] == "make":
        done = subprocess.run(["make", "-n", "-B", words[1]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "-m lasat_ray.train --num-workers 4" in done.stdout or "pytest" in done.stdout
        return
    assert words[:2] == ["python", "-m"], f"the runner knows no '{words[0]}'; mark the block text"
    extra = ["--dry-run"] if NEEDS_GPU in line else []
    patch.setattr(sys, "argv", [*words[2:], *extra])
    patch.setenv("COLUMNS", "100")
    patch.setattr(sys, "path", [str(Path.cwd()), *sys.path])
    if words[2].startswith("examples"):
        runpy.run_module(words[2], run_name="__main__")
    else:
        assert importlib.import_module(words[2]).main() == 0, line


@pytest.mark.parametrize("block", [marked(block) for block in RUN])
def test_block(
    block: Block,
    folder: Path,
    namespaces: dict[str, dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    if block.title:
        (folder / block.title).write_text(block.text)
        assert block.language == "python" and compile(block.text, block.title, "exec")
        return
    if block.language == "python":
        names = namespaces.setdefault(block.page, {"__name__": "__main__"})
        exec(compile(block.text, block.page, "exec"), names)
    else:
        for line in block.text.replace("\\\n", " ").strip().splitlines():
            run_line(line.partition(" # ")[0], monkeypatch)
    assert capfd.readouterr().out or block.text.startswith(("make", "python -m examples"))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_no_command_hides_from_the_runner(page: Path) -> None:
    text = page.read_text()
    assert text.count("\n```") == 2 * len(FENCE.findall(text)), "a fence is left open or has other words"
    others = {language for language, _, _ in FENCE.findall(text)} - {"bash", "python", "text"}
    assert not others, f"name the language of every block: {others}"
    outside = FENCE.sub("", text)
    assert not re.search(r"^(    |\t)(python|make|pip|ray) ", outside, flags=re.M)


def test_the_gpu_page_runs_no_gpu_command_in_earnest() -> None:
    gpu = [block for block in RUN if NEEDS_GPU in block.text]
    assert {block.page for block in gpu} == {"README.md", "docs/gpu.md"}


def test_blocks_are_found() -> None:
    assert len(RUN) >= 40
