"""Joining a running cluster with --address, and the one line when there is none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.util import get_node_ip_address

TRAIN = [sys.executable, "-m", "lasat_ray.train", "--num-workers", "1", "--epochs", "1"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[str]:
    """A Ray head node of its own, in its own process group and folder; its address."""
    port = free_port()
    ray = str(Path(sys.executable).parent / "ray")
    command = [ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    command += ["--include-dashboard=true", f"--dashboard-port={free_port()}"]
    # Ray's sockets need a short path.
    temp = Path("/tmp") / f"lasat-{os.getpid()}"
    process = subprocess.Popen(
        [*command, f"--temp-dir={temp}"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        # Ray joins a cluster under the machine's own address, never under 127.0.0.1.
        host = get_node_ip_address()
        wait_for(host, port)
        yield f"{host}:{port}"
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait(30)


def wait_for(host: str, port: int) -> None:
    for _ in range(120):
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the head node did not come up in 60 s")


@pytest.mark.ray
def test_a_run_joins_a_running_cluster(head: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [*TRAIN, "--address", head, "--out", str(out)], capture_output=True, text=True, timeout=200
    )
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
    assert time.perf_counter() - began < 60
    assert not out.exists()
