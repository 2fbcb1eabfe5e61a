"""Ctrl-C of a command whose workers are Ray's: one line, status 130, nothing left behind, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from lasat_ray.runs.folder import RunFolder
from tests.support.ray_runs import weights

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SETTINGS = [
    *("--epochs", "12", "--batch-size", "48", "--data.max-train", "160", "--data.max-test", "40"),
    *("--precision", "fp64", "--attack.grid", "eps=0.1,0.2 num_steps=1..3", "--reward.ref-num-steps", "2"),
    *("--evaluation.every", "1", "--evaluation.val-num-steps", "2", "--evaluation.test-num-steps", "2"),
]


class Command:
    """``lasat_ray.train`` in a folder, and every process that it starts, by a mark in their environment."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.mark = uuid.uuid4().hex
        self.errors = folder / f"{self.mark}.err"
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lasat_ray.train", *args],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LASAT_MARK": self.mark},
                stdout=subprocess.DEVNULL,
                stderr=errors,
                process_group=0,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def titles(self) -> list[str]:
        """What runs for this command beside it, as ``ps`` shows it."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != self.process.pid and process.environ().get("LASAT_MARK") == self.mark:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:  # it ended while we looked, or is somebody else's
                continue
        return found

    def wait_until(self, reached: Callable[[], bool]) -> None:
        until = time.monotonic() + 300
        while not reached():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < until, "the moment never came"
            time.sleep(0.05)

    def runs(self, what: str) -> bool:
        return any(what in title for title in self.titles())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def begin(*args: str) -> Command:
        started.append(Command(tmp_path, *args))
        return started[-1]

    yield begin
    for command in started:
        command.process.kill()
        command.process.wait(30)


def check_ended(command: Command, told: str) -> None:
    """Status 130, ``told`` as the one line, and soon no process of the command is left."""
    assert command.process.wait(200) == 130
    assert command.errors.read_text() == f"lasat-ray: error: {told}\n"
    until = time.monotonic() + 200  # an agent that was just being started looks for its raylet only then
    while left := command.titles():
        assert time.monotonic() < until, left
        time.sleep(0.2)


def rounds(run: RunFolder) -> list[int]:
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [record["round"] for record in records if record["kind"] == "round"]


@pytest.mark.parametrize("moment", ["raylet", "ray::TrainController"])
@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_while_ray_starts_leaves_nothing(
    moment: str, twice: bool, start: Callable[..., Command], tmp_path: Path
) -> None:
    command = start(*SETTINGS, "--num-workers", "2", "--out", "run")
    command.wait_until(lambda: command.runs(moment))
    command.process.send_signal(signal.SIGINT)
    if twice:
        command.wait_until(lambda: not (tmp_path / "run").exists())
        command.process.send_signal(signal.SIGINT)
    check_ended(command, "interrupted; nothing was written")
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_workers_train_tells_how_to_go_on_and_loses_nothing(
    start: Callable[..., Command], tmp_path: Path
) -> None:
    command = start(*SETTINGS, "--num-workers", "2", "--out", "run")
    run = RunFolder(tmp_path / "run")
    command.wait_until((run.checkpoints / "previous.safetensors").is_file)
    os.killpg(command.process.pid, signal.SIGINT)  # as a terminal does
    check_ended(command, "interrupted; continue with --resume run")
    assert run.summary() is None and not (run.path / ".ray").exists()
    state, damaged = run.load_last()
    assert state is not None and not damaged
    assert rounds(run)[: state["round"]] == list(range(state["round"]))

    # What went on here equals what was never interrupted, up to the order of sums of two workers.
    for args in (["--resume", "run"], [*SETTINGS, "--out", "calm"]):
        assert start(*args).process.wait(200) == 0
    calm = RunFolder(tmp_path / "calm")
    assert rounds(run) == rounds(calm) == list(range(len(rounds(calm))))
    for net, tensors in weights(calm).items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(weights(run)[net][name], tensor, rtol=0, atol=1e-9)
