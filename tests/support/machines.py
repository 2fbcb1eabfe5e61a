"""A Ray cluster of several machines on this one, as `ray start` makes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).parent / "ray")
SECONDS_TO_START = 120.0
TRIES = 3


@dataclass(frozen=True)
class Machines:
    """A running cluster."""

    address: str
    env: Mapping[str, str]
    """The environment it was started in: of an account without files of its own, in Ray's default mode."""
    join: Callable[..., subprocess.Popen[bytes]]
    """Adds a machine with so many cores, and labels as ``ray start`` takes them; ``end`` takes it away."""
    others: tuple[subprocess.Popen[bytes], ...] = ()
    """The machines beside the head."""


@contextmanager
def ray_machines(*cpus: int, dashboard: bool = False, token: str | None = None) -> Iterator[Machines]:
    """A head and further machines with so many cores each, in process groups of their own.

    ``token``: what the account has in its environment; None for none.
    """
    # Ray's sockets need a short path.
    temp = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    ours = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    env = {name: value for name, value in os.environ.items() if name not in ours} | {"HOME": str(temp)}
    if token:
        env["RAY_AUTH_TOKEN"] = token
    processes: list[subprocess.Popen[bytes]] = []
    try:
        address = start_head(processes, temp, env, cpus[0], dashboard)

        def join(cores: int, labels: str | None = None) -> subprocess.Popen[bytes]:
            mode = {"RAY_AUTH_MODE": "token"} if token else {}  # a head finds its token without, others not
            flags = [
                f"--address={address}",
                f"--num-cpus={cores}",
                *([f"--labels={labels}"] if labels else []),
            ]
            processes.append(ray_start(temp / "join.log", {**env, **mode}, *flags))
            return processes[-1]

        yield Machines(address, env, join, tuple(join(cores) for cores in cpus[1:]))
    finally:
        for process in reversed(processes):
            end(process)
        shutil.rmtree(temp, ignore_errors=True)


def start_head(
    processes: list[subprocess.Popen[bytes]], temp: Path, env: Mapping[str, str], cpus: int, dashboard: bool
) -> str:
    """Starts a head; where that fails, as when another program takes a port, once more in a new folder."""
    told = ""
    for number in range(TRIES):
        folder, log = temp / str(number), temp / f"head{number}.log"
        flags = ["--head", "--port=0", f"--num-cpus={cpus}", f"--temp-dir={folder}"]
        flags += [f"--include-dashboard={str(dashboard).lower()}", "--dashboard-port=0"]
        process = ray_start(log, env, *flags)
        processes.append(process)
        # `ray start` writes this file when all of its own processes answer.
        written = folder / "ray_current_cluster"
        until = time.monotonic() + SECONDS_TO_START
        while process.poll() is None and time.monotonic() < until:
            if written.is_file() and (address := written.read_text().strip()):
                return address
            time.sleep(0.2)
        end(process)
        told += f"\n--- try {number}, status {process.returncode}\n{log.read_text()}"
    raise AssertionError(f"no head node came up:{told}")


def ray_start(log: Path, env: Mapping[str, str], *flags: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [RAY, "start", "--block", *flags], env=env, process_group=0, stdout=file, stderr=file
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills it with all it started."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it ended as its parent did
                child.kill()
    process.kill()
    process.wait(30)
