"""``--num-workers 1..2``: machines come and go, the run goes on with those there are, to the same end."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

import lasat_ray.cluster.scaling as scaling_module
from lasat_ray.cli.run_options import parse_train
from lasat_ray.cluster.local import train_here
from lasat_ray.cluster.placement import ANYWHERE
from lasat_ray.cluster.scaling import scaling_of
from lasat_ray.errors import UsageError, UserError
from lasat_ray.runs.folder import RunFolder
from tests.support.machines import end, ray_machines
from tests.support.ray_runs import new_folder, tiny, weights

ROOT = Path(__file__).parents[2]
DRIVER = """
import sys
from pathlib import Path
from lasat_ray.cluster.ray_train import train_on_ray
from lasat_ray.cluster.session import ray_session
from lasat_ray.runs.folder import RunFolder

folder = RunFolder.open(Path(sys.argv[2]))
with ray_session(sys.argv[1], start_timeout=30):
    train_on_ray(
        folder.config(), folder, num_workers=2, min_workers=1, device="cpu", resize_s=20,
        start_failures=10, max_failures=10,
    )
"""


def wait_for_workers(run: RunFolder, count: int, driver: subprocess.Popen[bytes], told: Path) -> int:
    """The round of a new checkpoint that ``count`` workers wrote."""
    until = time.monotonic() + 300
    while True:
        try:
            state, _ = run.load_last()
        except UserError:  # between two names
            state = None
        if state is not None and state["world_size"] == count:
            return int(state["round"])
        assert driver.poll() is None, told.read_text()
        assert time.monotonic() < until, f"{count} workers never saved"
        time.sleep(0.2)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_machines_come_and_go_and_the_weights_are_those_of_one_process(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny(), epochs=100_000)
    run, told = new_folder(tmp_path / "run", config), tmp_path / "told.txt"
    with ray_machines(1, 1) as machines, told.open("w") as out:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, machines.address, str(run.path)],
            env={**machines.env, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=out,
        )
        try:
            rounds = [wait_for_workers(run, 2, driver, told)]
            end(machines.others[0])
            rounds.append(wait_for_workers(run, 1, driver, told))
            machines.join(1)
            rounds.append(wait_for_workers(run, 2, driver, told))
            driver.send_signal(signal.SIGTERM)
            driver.wait(120)
        finally:
            driver.kill()
    assert "stopped by SIGTERM" in told.read_text(), told.read_text()
    state, _ = run.load_last()
    assert state is not None and rounds == sorted(rounds) and state["round"] >= rounds[-1]
    calm = new_folder(tmp_path / "calm", config)
    train_here(config, calm, device="cpu", stop_after=state["round"])
    for net, tensors in weights(calm).items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(weights(run)[net][name], tensor, rtol=0, atol=1e-8)
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [r["round"] for r in records if r["kind"] == "round"] == list(range(state["round"]))


def options(*words: str) -> Any:
    return parse_train(["--recipe", "digits", *words])[1]


def test_a_range_of_workers_is_two_settings() -> None:
    for words in (
        ["--num-workers", "2..8"],
        ["--num-workers=2..8"],
        ["--num-workers", "8", "--min-workers", "2"],
    ):
        found = options(*words)
        assert (found.min_workers, found.num_workers) == (2, 8)
    assert options("--num-workers", "8").min_workers is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--num-workers", "3..2"], "--min-workers: 3 is more than --num-workers 2, which is the most"),
        (["--min-workers", "1"], "--min-workers: 1 is more than --num-workers 0"),
        (["--num-workers", "0..2"], "--min-workers: 0 is out of range; give 1 or more"),
        (["--num-workers", "2.."], "--num-workers: '2..' is not accepted"),
    ],
)
def test_a_range_that_cannot_be_is_one_line(words, told, monkeypatch, capsys, tmp_path) -> None:
    from lasat_ray import train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lasat-train", *words])
    assert train.main() == 2
    errors = capsys.readouterr().err
    assert told in errors and errors.count("\n") == 1 and not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("cpus", "least", "share"), [(2.0, 2, 0.95), (2.0, 1, 0.95), (64.0, 2, 0.95), (2.0, 4, 0.47)]
)
def test_ray_is_asked_for_the_range_and_least_has_to_fit(
    cpus: float, least: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = {"Alive": True, "Labels": {}, "Resources": {"CPU": cpus}}
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": cpus})
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    asked: list[Callable[..., None]] = []
    monkeypatch.setattr(scaling_module, "check_free", lambda *wanted: asked.append(wanted))
    where: dict[str, Any] = {"gpus_per_worker": 1.0, "device": "cpu", "placement": ANYWHERE}
    scaling = scaling_of(8, least, cpus_per_worker=None, **where)
    assert scaling.num_workers == (least, 8) and scaling.resources_per_worker == {"CPU": share}
    assert asked == [(least, {"CPU": share})]
    with pytest.raises(UsageError, match=f"--num-workers: {least} workers of 40 CPUs need"):
        scaling_of(8, least, cpus_per_worker=40.0, **where)
