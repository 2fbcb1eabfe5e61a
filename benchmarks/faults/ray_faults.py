"""Faults of a run on Ray: two workers on the two raylets of a cluster on this machine.

Ray's own restarts have to mend what happens to a worker or a machine; a driver that died is started
again by the campaign.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faults.strikes import at_all_reduce, at_round, at_save, campaign_config, die
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.loop import Trainer

Fault = Callable[[Trainer, int, Callable[[], None]], None]
HEAD, OTHER = "127.0.0.2", "127.0.0.3"  # Ray takes 127.0.0.1 for the machine's own address
AWAY_S = 8.0  # how long a killed machine stays away

DRIVER, NODE = "Ray: SIGKILL of the driver", "Ray: SIGKILL of a node, which returns"
NODE_TWICE, RAYLET = "Ray: SIGKILL of a node twice, which returns", "Ray: SIGKILL of a raylet alone"
GCS, STORE = "Ray: SIGKILL of the cluster's own server (GCS)", "Ray: object store full"
STORE_BYTES = 80 * 2**20  # Ray takes no less than 75 MiB
RAY_FAULTS: dict[str, Fault] = {
    "Ray: SIGKILL of a worker in an attack": at_round,
    "Ray: SIGKILL of a worker in an all-reduce": at_all_reduce,
    "Ray: SIGKILL of a worker writing a checkpoint": lambda trainer, round, strike: at_save(
        trainer, round, "fsync", strike
    ),
    DRIVER: at_round,
    NODE: at_round,
    NODE_TWICE: at_round,
    RAYLET: at_round,
    GCS: at_round,
    STORE: at_round,
}
BY_HAND = (DRIVER, GCS)
"""Faults that end the driver, so that the campaign starts another."""
WAITS = (NODE, NODE_TWICE, RAYLET, GCS)
"""Faults that come from outside, while the worker at the round waits for them."""


class TwoNodes:
    """A head and a second raylet, one worker's core each; the second can be killed and brought back."""

    def __init__(self, folder: Path) -> None:
        os.environ["RAY_AUTH_MODE"] = "token"
        with socket.socket() as probe:
            probe.bind((HEAD, 0))
            self.address = f"{HEAD}:{probe.getsockname()[1]}"
        # Ray's sockets need a short path.
        self._temp = tempfile.mkdtemp(prefix="lasat-", dir="/tmp")
        self._log = (folder / "ray.log").open("w")
        port = self.address.rpartition(":")[2]
        head = [f"--node-ip-address={HEAD}", "--head", f"--port={port}", f"--temp-dir={self._temp}"]
        self._options = [*head, "--dashboard-host=127.0.0.1"]
        self._begin()

    def _begin(self, tries: int = 3) -> None:
        self._head = self._start(*self._options)
        self._wait_for_head()
        self._other = self._join()
        time.sleep(20)  # a busy machine may be too slow for Ray, which then ends by itself
        if (self._head.poll(), self._other.poll()) != (None, None):
            if not tries:
                raise RuntimeError("this machine is too busy to start Ray")
            self.renew(tries - 1)

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        ray = str(Path(sys.executable).parent / "ray")
        store = f"--object-store-memory={STORE_BYTES}"
        command = [ray, "start", "--block", "--num-cpus=1", store, *options]
        return subprocess.Popen(command, start_new_session=True, stdout=self._log, stderr=self._log)

    def _join(self) -> subprocess.Popen[bytes]:
        return self._start(f"--node-ip-address={OTHER}", f"--address={self.address}")

    def _wait_for_head(self) -> None:
        host, _, port = self.address.rpartition(":")
        for _ in range(240):
            with contextlib.suppress(OSError):
                return socket.create_connection((host, int(port)), timeout=1).close()
            time.sleep(0.5)
        raise RuntimeError("the head node did not come up in 120 s")

    def lose_other(self) -> None:
        """The second machine is gone with all that ran there, and comes back after AWAY_S."""
        _kill_tree(self._other)
        time.sleep(AWAY_S)
        self._other = self._join()

    def lose_raylet(self) -> None:
        """The second machine's raylet is gone; what is left there ends by itself, or with it."""
        _kill_child(self._other, "raylet")
        time.sleep(AWAY_S)
        _kill_tree(self._other)
        self._other = self._join()

    def lose_gcs(self) -> None:
        """The server that knows the cluster is gone, and so is the cluster: Ray keeps no copy of it here."""
        _kill_child(self._head, "gcs_server")

    def renew(self, tries: int = 3) -> None:
        """A new cluster at the same address."""
        for node in (self._other, self._head):
            _kill_tree(node)
        self._begin(tries)

    def close(self) -> None:
        for node in (self._other, self._head):
            _kill_tree(node)
        self._log.close()
        shutil.rmtree(self._temp, ignore_errors=True)


def _kill_child(process: subprocess.Popen[bytes], name: str) -> None:
    for child in psutil.Process(process.pid).children(recursive=True):
        if child.name().startswith(name):
            return child.kill()
    raise RuntimeError(f"no {name} runs")


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait(30)


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[TwoNodes]:
    nodes = TwoNodes(folder)
    try:
        yield nodes
    finally:
        nodes.close()


def struck_loop(plan: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """The workers' loop, in which the fault hits once: at ``round``, on ``rank``."""

    def loop(job: dict[str, Any]) -> Any:
        import lasat_ray.cluster.ray_train as ray_train

        ray_train.Trainer = struck_trainer(plan)  # type: ignore[misc]
        return ray_train.worker_loop(job)

    return loop


def struck_trainer(plan: dict[str, Any]) -> type[Trainer]:
    """A trainer that notes its rounds and, unless the marker tells that it did, is struck."""
    log = Path(plan["log"])
    marks = [mark for mark in marks_of(plan) if not mark.exists()]

    def strike() -> None:
        marks[0].write_text(str(time.time()))
        if plan["fault"] == DRIVER:
            os.kill(plan["driver"], signal.SIGKILL)
        elif plan["fault"] == STORE:
            fill_store()
        elif plan["fault"] in WAITS:
            time.sleep(600)
        else:
            die()

    class Struck(Trainer):
        def restore(self) -> None:
            super().restore()
            if plan["fault"] and self.context.group.rank == plan["rank"] and marks:
                later = 2 * (len(marks_of(plan)) - len(marks))
                RAY_FAULTS[plan["fault"]](self, plan["round"] + later, strike)

        def play(self) -> Any:
            report = super().play()
            if self.context.group.is_first:
                with open(log, "a") as file:
                    file.write(f"{report.round} {time.time()} {os.getpid()}\n")
            return report

    return Struck


def marks_of(plan: dict[str, Any]) -> list[Path]:
    """The files that tell when a fault struck, one for each time that it does."""
    times = 2 if plan["fault"] == NODE_TWICE else 1
    return [Path(f"{plan['marker']}-{n}") for n in range(times)]


KEPT: list[Any] = []


def fill_store() -> None:
    """Objects of twice the store's size, which this process keeps."""
    import numpy as np
    import ray

    piece = STORE_BYTES // 8
    KEPT.extend(ray.put(np.full(piece, n, np.uint8)) for n in range(16))


def drive(address: str, path: Path, plan: dict[str, Any]) -> None:
    """A driver: joins the cluster and trains or continues the run."""
    import ray

    import lasat_ray.cluster.ray_train as ray_train
    from lasat_ray.cluster.session import ray_session, wait_free

    os.environ["RAY_AUTH_MODE"] = "token"
    ray_train.worker_loop = struck_loop({**plan, "driver": os.getpid()})  # type: ignore[assignment]
    ray.init(address=address, _node_ip_address=HEAD, log_to_driver=False, logging_level="ERROR")
    with ray_session(address, start_timeout=20):
        # A cluster counts the workers of a dead driver for a while, and a machine that returns late.
        wait_free(2, {"CPU": 0.95}, seconds=90)
        folder = RunFolder.open(path)
        ray_train.train_on_ray(
            folder.config(),
            folder,
            num_workers=2,
            cpus_per_worker=0.95,
            device="cpu",
            hang_timeout=90,
            start_failures=20,
        )


def driver(address: str, path: Path, plan: dict[str, Any], on_mark: Callable[[], None]) -> int | None:
    """Run ``drive`` in a process of its own; its exit status. ``on_mark``: called at every strike."""
    child = multiprocessing.get_context("spawn").Process(target=drive, args=(address, path, plan))
    child.start()
    marks, deadline = marks_of(plan), time.monotonic() + 400
    while child.is_alive() and time.monotonic() < deadline:
        if marks and marks[0].exists():
            marks.pop(0)
            on_mark()
        child.join(0.1)
    child.kill()
    child.join()
    return child.exitcode


def calm_on_ray(nodes: TwoNodes, out: Path) -> RunFolder:
    """The undisturbed run of two workers."""
    folder = RunFolder.create(out / "calm-on-ray", campaign_config())
    plan = {"fault": None, "rank": 0, "round": 0, "marker": str(out / "calm"), "log": str(out / "calm.log")}
    status = driver(nodes.address, folder.path, plan, lambda: None)
    if status != 0:
        raise RuntimeError(f"the undisturbed run on Ray ended with status {status}")
    return folder


def strike_on_ray(nodes: TwoNodes, fault: str, round: int, out: Path) -> dict[str, Any]:
    """One fault and what it takes until the run is finished: statuses, rounds played, recovery."""
    folder, log = RunFolder.create(out / "run", campaign_config()), out / "log"
    # Checkpoints are written by the first worker, and it depends on Ray which machine has which.
    rank = 0 if "checkpoint" in fault else random.Random(f"{fault}/{round}").randrange(2)
    plan = {"fault": fault, "rank": rank, "round": round, "marker": str(out / "struck"), "log": str(log)}
    lose = {NODE: nodes.lose_other, NODE_TWICE: nodes.lose_other, RAYLET: nodes.lose_raylet}
    lose[GCS] = nodes.lose_gcs
    status = last = driver(nodes.address, folder.path, plan, lose.get(fault, lambda: None))
    if fault in BY_HAND:
        if fault == GCS:
            nodes.renew()
        last = driver(nodes.address, folder.path, {**plan, "fault": None}, lambda: None)
    struck_at = [float(mark.read_text()) for mark in marks_of(plan) if mark.exists()]
    lines = [line.split() for line in log.read_text().splitlines()]
    struck = struck_at[-1] if struck_at else None
    before = {pid for _, when, pid in lines if struck is None or float(when) < struck}
    again = [float(when) for _, when, pid in lines if pid not in before]
    if fault == STORE and struck:  # nothing is started anew
        again = [float(when) for _, when, _ in lines if float(when) > struck]
    if len(struck_at) < len(marks_of(plan)):
        again = []  # it was not struck
    return {
        "folder": folder,
        "status": status,
        "last_status": last,
        "played": len(lines),
        "recovery": again[0] - struck if again and struck else None,
    }
