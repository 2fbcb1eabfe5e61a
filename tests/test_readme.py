"""Every command of the README runs, in the order it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
NEEDS_GPU = "--device cuda"
pytestmark = pytest.mark.ray  # one block trains on Ray, and later ones need what it made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with the examples and somebody's images."""
    path = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", path / "examples")
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 6)):
        for name in ("cat", "dog"):
            (path / "my_images" / part / name).mkdir(parents=True)
            for n in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path / "my_images" / part / name / f"{n}.png")
    return path


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"}
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(("language", "block"), BLOCKS, ids=[block[:60] for _, block in BLOCKS])
def test_block(language: str, block: str, folder: Path) -> None:
    if language == "python":
        assert run([sys.executable, "-c", block], folder)
        return
    for line in block.strip().splitlines():
        words = line.split()
        if words[0] == "make":  # inside make: show that the target exists and what it would run
            shown = run(["make", "-n", "-B", words[1]], ROOT)
            assert "-m lasat_ray.train --num-workers 4" in shown or "pytest" in shown
            continue
        assert words[:2] == ["python", "-m"]
        extra = ["--dry-run"] if NEEDS_GPU in line else []
        command = line.replace("python", sys.executable, 1)
        assert run(["bash", "-c", " ".join([command, *extra])], folder)


def test_blocks_are_found() -> None:
    assert len(BLOCKS) >= 10
