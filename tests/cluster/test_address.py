"""Joining a running cluster with --address, and the one line when there is none."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.machines import ray_machines

TRAIN = [sys.executable, "-m", "lasat_ray.train", "--num-workers", "1", "--epochs", "1"]
TOKEN = "a" * 64


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.ray
@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_run_joins_a_running_cluster(token: str | None, tmp_path: Path) -> None:
    """With its token, or, as is Ray's default, without one, though we have one."""
    out = tmp_path / "run"
    with ray_machines(2, dashboard=True, token=token) as machines:
        command = [*TRAIN, "--address", machines.address, "--out", str(out)]
        env = {**machines.env, "RAY_AUTH_TOKEN": TOKEN}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "summary.json").read_text())["num_workers"] == 1


def test_an_address_without_a_cluster_is_one_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    address = f"127.0.0.1:{free_port()}"
    began = time.perf_counter()
    done = subprocess.run(
        [*TRAIN, "--address", address, "--out", str(out)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"--address: nothing answers at '{address}'" in done.stderr
    assert time.perf_counter() - began < 150
    assert not out.exists()


def test_an_address_of_something_else_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        command = [*TRAIN, "--address", address, "--out", str(tmp_path / "run")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"--address: no Ray cluster is at '{address}'" in done.stderr
