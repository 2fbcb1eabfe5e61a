"""One command, repeated until it is done: killed at any moment, the run ends with the same bits."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lasat_ray import train
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.lock import locked
from tests.support.struck_command import run_command

SETTINGS = [
    *("--epochs", "2", "--batch-size", "64", "--data.max-train", "180", "--data.max-test", "40"),
    *("--attack.grid", "eps=0.1,0.2 num_steps=1..3", "--model", "tiny_cnn", "--strategy-model", "tiny_cnn"),
    *("--reward.ref-num-steps", "2", "--evaluation.val-num-steps", "2", "--evaluation.test-num-steps", "2"),
]
COMMAND = [*SETTINGS, "--resume-or-start", "--out", "run"]
BEGINNING = 12
"""Writes before the first round; each of them is a moment to be killed at."""


@pytest.fixture(scope="module")
def command() -> Callable[..., int]:
    """Runs the command in a folder, killed before a write where that is asked; its exit status."""

    def run(folder: Path, strike: int | None = None) -> int:
        return run_command(COMMAND, folder, ("run", str(folder / "run")), strike, 120)

    return run


@pytest.fixture(scope="module")
def calm(command: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm")
    assert command(folder) == 0, (folder / "told.txt").read_text()
    return folder


def strikes(writes: int) -> list[tuple[int, ...]]:
    """Moments of one kill, dense where the run begins and thin later, and some of several in a row."""
    late = range(BEGINNING + 1, writes + 1, max(1, (writes - BEGINNING) // 10))
    return [
        *((n,) for n in range(1, BEGINNING + 1)),
        *((n,) for n in late),
        (3, 5, 9),
        (writes // 2, 4, writes // 3),
    ]


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    return a == b


def weights(run: Path, name: str) -> Any:
    state = load_checkpoint(run / "checkpoints" / f"{name}.safetensors")
    return {part: state.get(part) for part in ("target_net", "learner", "round")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_write_the_same_command_ends_with_the_same_bits(calm, command, tmp_path):
    for moments in strikes(int((calm / "writes.txt").read_text())):
        folder = tmp_path / "-".join(map(str, moments))
        folder.mkdir()
        for moment in moments:
            assert command(folder, moment) in (-signal.SIGKILL, 0), (
                moments,
                (folder / "told.txt").read_text(),
            )
        assert command(folder) == 0, (moments, (folder / "told.txt").read_text())
        for name in ("last", "best"):
            assert equal(weights(folder / "run", name), weights(calm / "run", name)), (moments, name)
        lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        assert [r["round"] for r in lines if r["kind"] == "round"] == list(range(4)), moments
        assert not list((folder / "run").rglob("*.tmp")), moments
        assert (folder / "run" / "manifest.json").is_file()


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["lasat-train", *args])
    return train.main()


@pytest.fixture
def finished(calm: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(calm)
    monkeypatch.setenv("COLUMNS", "120")
    return calm / "run"


def test_a_finished_run_is_told_and_left_as_it_is(finished, monkeypatch, capsys):
    """With workers too: there is nothing that Ray would be needed for."""
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    monkeypatch.setitem(sys.modules, "ray", None)  # whoever imports it fails
    assert run(monkeypatch, *COMMAND, "--num-workers", "2") == 0
    summary = json.loads((finished / "summary.json").read_text())
    assert f"{100 * summary['robust_acc_pgd2']:.1f} %" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ["--epochs", "3"],
            "--epochs: 3 is not what 'run' was started with (2); give that, choose another --out",
        ),
        (["--reward.alpha", "2"], "--reward.alpha: 2.0 is not what 'run' was started with"),
        (["--resume", "run"], "--out: 'run' cannot be set with --resume"),
    ],
)
def test_another_run_is_refused_in_one_line_and_nothing_is_touched(args, told, finished, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert run(monkeypatch, *COMMAND, *args) == 2
    errors = capsys.readouterr().err
    assert told in errors and errors.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_it_needs_a_folder_of_its_own(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *SETTINGS, "--resume-or-start") == 2
    assert "--resume-or-start: has no folder to come back to; name one with --out" in capsys.readouterr().err
    assert run(monkeypatch, "--resume-or-start", "--resume", "run") == 1
    assert not list(tmp_path.iterdir())


def test_a_half_start_keeps_what_is_not_its_own(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "slurm-1.out").write_text("mine")
    (tmp_path / "run" / "manifest.json").write_text('{"lasat_ray": "0.1.0"}')
    (tmp_path / "run" / ".config.json.7.tmp").write_text("{")
    assert run(monkeypatch, *COMMAND) == 0
    assert (tmp_path / "run" / "slurm-1.out").read_text() == "mine"
    assert RunFolder.open(tmp_path / "run").summary() and not list((tmp_path / "run").glob(".config*"))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("manifest.json", "{}", "'run/manifest.json' is no file of a run; choose another folder"),
        ("metrics.jsonl", "", "run/metrics.jsonl: is of a run whose config.json is gone"),
        ("checkpoints/last.safetensors", "", "last.safetensors: is of a run whose config.json is gone"),
    ],
)
def test_files_that_a_start_would_write_over_are_not_its_own(
    name, content, told, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / name).write_text(content)
    assert run(monkeypatch, *COMMAND) in (1, 2)
    errors = capsys.readouterr().err
    assert told in errors and errors.count("\n") == 1
    assert (tmp_path / "run" / name).read_text() == content and not (
        tmp_path / "run" / "config.json"
    ).exists()


def test_of_two_at_the_same_time_the_second_is_told_who_the_first_is(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with locked(tmp_path / "run" / ".run.lock"):  # the first one begins
        assert run(monkeypatch, *COMMAND) == 1
    errors = capsys.readouterr().err
    assert (
        f"run: another run is writing here (process {os.getpid()} on " in errors and errors.count("\n") == 1
    )
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".run.lock", "checkpoints"]


def test_the_recipe_for_own_images_keeps_the_sizes_that_it_chose(monkeypatch, tmp_path):
    """They go by the images; with the images gone a finished run still tells its results."""
    monkeypatch.chdir(tmp_path)
    from tests.docs.test_docs_run import put_images

    put_images(tmp_path)
    args = [
        "--recipe",
        "images",
        "--dataset",
        "imagefolder:my_images@8",
        "--epochs",
        "1",
        "--strategy",
        "fixed",
    ]
    args += ["--attack.num-steps", "1", "--evaluation.val-num-steps", "1", "--evaluation.test-num-steps", "1"]
    args += ["--resume-or-start", "--out", "run"]
    assert run(monkeypatch, *args) == 0
    (tmp_path / "my_images").rename(tmp_path / "elsewhere")
    assert run(monkeypatch, *args) == 0


def test_a_rival_that_was_begun_half_is_begun_again(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    args = [*COMMAND, "--compare", "pgd-at", "--compare-by", "rounds"]
    (tmp_path / "run" / "compare-pgd-at" / "checkpoints").mkdir(parents=True)
    assert run(monkeypatch, *args) == 0
    assert RunFolder.open(tmp_path / "run" / "compare-pgd-at").summary()
    assert run(monkeypatch, *args) == 0
