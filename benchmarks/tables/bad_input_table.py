"""What every command answers to bad input; writes the table of docs/reliability.md.

python -m benchmarks.tables.bad_input_table            # runs all cases of bad_inputs.py, writes the table
python -m benchmarks.tables.bad_input_table --check    # exit status 1 where the page says something else
"""

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
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.tables import marked
from lasat_ray.cluster.local import train_here
from lasat_ray.config import TrainConfig
from lasat_ray.recipes import get_recipe
from lasat_ray.runs.folder import RunFolder
from tests.robustness.cases.bad_case import Bad
from tests.robustness.cases.bad_inputs import CASES
from tests.robustness.cases.spoil import images, png

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


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


def table(answers: dict[str, list[tuple[Bad, Answer]]]) -> str:
    """Markdown: a table a group."""
    parts = [f"{sum(map(len, answers.values()))} cases."]
    for group, rows in answers.items():
        lines = [f"### {group}", "", "| typed | given | answer | status |", "|---|---|---|---|"]
        for case, given in rows:
            cells = [f"`{case.command}`", case.given, given.line, str(given.status)]
            lines.append(
                "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def block(world: Path, folder: Path) -> str:
    """What belongs between the page's marks; every case runs in a folder of its own in ``folder``."""
    numbers = iter(range(10**6))
    return table(
        {
            group: [(case, answer(case, world, folder / f"case-{next(numbers)}")) for case in cases]
            for group, cases in CASES.items()
        }
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        make_world(Path(folder) / "world")
        text = block(Path(folder) / "world", Path(folder))
    # test_tables.py leaves this page out: tests/robustness/test_bad_input.py runs all cases anyway.
    return marked.put_blocks(PAGE, {"bad-input": text}, check="--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
