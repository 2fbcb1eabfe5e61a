"""What a command answers to bad input: its status, its message, and what it changed on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lasat_ray.cluster.local import train_here
from lasat_ray.config import TrainConfig
from lasat_ray.recipes import get_recipe
from lasat_ray.runs.folder import RunFolder
from tests.robustness.cases.bad_case import Bad
from tests.robustness.cases.spoil import images, png


@dataclass(frozen=True)
class Answer:
    """What a command did: its exit status, what it wrote to stderr, and what it changed on disk."""

    status: int
    stderr: str
    changed: tuple[str, ...]

    @property
    def line(self) -> str:
        """The message without what differs between machines."""
        said = re.sub(r"/\S*?/case-\d+/", "", self.stderr).strip().removeprefix("lasat-ray: error: ")
        return re.sub(r"[\d.]+ GiB of memory is free", "N GiB of memory is free", said)


def small_config() -> TrainConfig:
    """A run of a second."""
    base = get_recipe("digits").config
    return dataclasses.replace(
        base,
        model="small_cnn",
        strategy_model="mlp",
        epochs=1,
        batch_size=32,
        data=dataclasses.replace(base.data, max_train=72, max_test=16),
        attack=dataclasses.replace(base.attack, grid={"eps": (0.1, 0.2), "num_steps": (1.0, 2.0)}),
        reward=dataclasses.replace(base.reward, ref_num_steps=1),
        evaluation=dataclasses.replace(base.evaluation, val_num_steps=1, test_num_steps=(1,)),
    )


def make_world(here: Path) -> None:
    """The files that the cases speak of."""
    folder = RunFolder.create(here / "run", small_config())
    train_here(folder.config(), folder, device="cpu")
    folder.save_last(folder.load_last()[0] or {})  # as after two checkpoints
    np.savez(here / "good.npz", **images())
    (here / "image.png").write_bytes(png())


def answer(case: Bad, world: Path, here: Path) -> Answer:
    """Run a case in a copy of ``world`` at ``here``, in this process."""
    shutil.copytree(world, here)
    if case.edit:
        case.edit(here)
    before = listing(here)
    module, *argv = case.command.split()
    stderr = io.StringIO()
    quiet = contextlib.redirect_stdout(io.StringIO())
    with _standing_in(here), _argv(argv), quiet, contextlib.redirect_stderr(stderr):
        status = importlib.import_module(module).main()
    after = listing(here)
    changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return Answer(status, stderr.getvalue(), tuple(changed))


def listing(here: Path) -> dict[str, str]:
    """Every file and folder with what it holds; what Python notes about imported code is not ours."""
    paths = [path for path in here.rglob("*") if "__pycache__" not in path.parts]
    return {
        str(path.relative_to(here)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in paths
    }


@contextlib.contextmanager
def _standing_in(here: Path) -> Iterator[None]:
    before, paths = Path.cwd(), list(sys.path)
    os.chdir(here)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = paths  # a plug-in of one case is none of another's


@contextlib.contextmanager
def _argv(argv: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, ["lasat-ray", *argv]
    try:
        yield
    finally:
        sys.argv = before
