"""Joining or starting Ray, and knowing at once whether the workers asked for can be had."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from lasat_ray.cluster.authentication import authentication
from lasat_ray.cluster.store import store_bytes
from lasat_ray.errors import UsageError, UserError
from lasat_ray.errors.interrupts import signals_kept, undisturbed
from lasat_ray.plugins import blaming

# Read by Ray Train in the driver and handed on to its controller and workers.
_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default 2.0 costs 2 s at each report()
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else every printed line appears twice
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a FutureWarning; we set no GPU variables
    "RAY_DEDUP_LOGS": "0",
}


@contextmanager
def ray_session(address: str | None, start_timeout: float, *, dashboard: bool = True) -> Iterator[None]:
    """Ray for the time of the block: a private cluster that no other machine reaches, or the running one
    at ``address``.

    ``dashboard``: of a private cluster; only Ray Train needs it, its clean-up asks it which actors live.

    A cluster that somebody else had connected in this process stays connected.
    """
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(start_timeout)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield
        return
    if address is None:
        forget_dead_cluster()
    else:
        address = check_reachable(address)
    with authentication(address):
        try:
            _connect(address, dashboard)
        except UserError:
            raise
        except (ConnectionError, ValueError, RuntimeError, AuthenticationError) as error:
            told = str(error).splitlines()[0]
            remedy = "start it, or leave --address out"
            raise UserError(f"--address: cannot join '{address}' ({told}); {remedy}") from error
        try:
            yield
        finally:
            with undisturbed():  # else Ray's agents would outlive the command by minutes
                ray.shutdown()


def _connect(address: str | None, dashboard: bool, patience: int = 3) -> None:
    """Join ``address`` or start a cluster here, which a busy machine may be too slow for at first."""
    try:
        sizes = {} if address else {"object_store_memory": store_bytes()}
        with nullcontext() if address else _on_loopback(), signals_kept():
            # address="local": a plain init() would join whatever cluster some file names, or wait for it.
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=None if address else dashboard,
                dashboard_host="127.0.0.1",  # it takes jobs, that is code; a joined cluster's is not ours
                **sizes,
            )
    except Exception as error:
        ray.shutdown()
        slow = any(told in str(error) for told in ("timed out during startup", "dashboard.log"))
        if not slow:  # Ray waits 30 s and raises a bare Exception
            raise
        if patience <= 1:
            raise UserError(
                "ray: this machine is too busy to start it (tried three times); free some of it, or join a "
                "running cluster with --address"
            ) from error
        _connect(address, dashboard, patience - 1)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A cluster that starts in the block has the address 127.0.0.1, and all its ports listen there alone.

    Ray's own switch, by which it does so on Windows and macOS, for this process and those it starts. An
    address given to ``ray.init`` it would replace by the machine's, and listen on all interfaces.
    """
    try:
        from ray._private import ray_constants

        name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
        before, environment = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    except (ImportError, AttributeError) as error:  # rather no cluster than one that all machines reach
        raise UserError(
            f"ray: version {ray.__version__} cannot be held on this machine's loopback ({error}); install "
            "ray 2.60, or join a running cluster with --address"
        ) from error
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[name] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]
        if environment is not None:
            os.environ[name] = environment


def check_reachable(address: str) -> str:
    """``address`` without ``auto``; UserError unless something listens there: Ray would ask for minutes.

    HOST:PORT, ray://HOST:PORT, or ``auto``, which Ray resolves by $RAY_ADDRESS or its own record.
    """
    remedy = "start the cluster, or leave --address out to train on this machine alone"
    wanted = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    if address == "auto" and not wanted:
        forget_dead_cluster()
        if not _record_of_cluster().exists():
            raise UserError(f"--address: 'auto' finds no running cluster on this machine; {remedy}")
        return _record_of_cluster().read_text().strip()
    host, _, port = wanted.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"--address: '{wanted}' is no address; give auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except OSError as error:
        told = error.strerror or str(error)
        raise UserError(f"--address: nothing answers at '{wanted}' ({told}); {remedy}") from error
    return wanted


def _record_of_cluster() -> Path:
    """Where Ray notes the cluster that this machine last started."""
    return Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"


def forget_dead_cluster(record: Path | None = None) -> bool:
    """Remove Ray's record of a cluster that no longer answers; True if there was one.

    A head node that was killed leaves its address behind, and Ray's helpers would wait for it.
    """
    record = record or _record_of_cluster()
    try:
        host, _, port = record.read_text().strip().rpartition(":")
        with socket.create_connection((host, int(port)), timeout=1.0):
            return False
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        record.unlink(missing_ok=True)
        return True


SMALLEST_SHARE = 0.1
"""Of a core, that nobody asked for: more processes a core than this take minutes to start, and memory."""


def worker_resources(
    num_workers: int,
    cpus_per_worker: float | None,
    use_gpu: bool,
    total: dict[str, float] | None = None,
    *,
    gpus_per_worker: float = 1.0,
    most_cpus: float = 1.0,
) -> dict[str, float]:
    """Resources of one worker; UsageError naming what is missing if they can never be met.

    Without ``cpus_per_worker`` workers share the cores: ``most_cpus`` each where there are enough, else a
    fraction, down to ``SMALLEST_SHARE``. ``total``: the cluster's resources (default: ask the connected one).
    """
    total = ray.cluster_resources() if total is None else total
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    if use_gpu and gpus + 1e-6 < num_workers * gpus_per_worker:
        raise UsageError(
            f"--num-workers: {num_workers} workers need {num_workers * gpus_per_worker:g} GPUs, "
            f"Ray sees {gpus:g}; ask for fewer workers or --device cpu"
        )
    # 5 % of the cores stay free: Ray's controller asks for a share of its own.
    share = cpus_per_worker or max(SMALLEST_SHARE, min(most_cpus, int(100 * 0.95 * cpus / num_workers) / 100))
    if share * num_workers > cpus + 1e-6:
        raise UsageError(
            f"--num-workers: {num_workers} workers of {share:g} CPUs need {share * num_workers:g} CPUs, "
            f"Ray has {cpus:g}; ask for fewer workers or set --cpus-per-worker lower"
        )
    return {"CPU": share, "GPU": gpus_per_worker} if use_gpu else {"CPU": share}


def check_free(num_workers: int, resources: dict[str, float]) -> None:
    """UserError if others hold what the workers need right now (instead of waiting in silence)."""
    free: dict[str, Any] = ray.available_resources()
    for name, each in resources.items():
        if free.get(name, 0.0) + 1e-6 < each * num_workers:
            raise UserError(
                f"--num-workers: {num_workers} workers need {each * num_workers:g} {name}, "
                f"{free.get(name, 0.0):g} are free in this cluster; wait, or ask for fewer workers"
            )


def module_folders() -> list[str]:
    """Where this program finds its modules: in the folder of its script, and in those that it added."""
    return [entry for entry in sys.path if os.path.isdir(entry)]


def find_modules_in(folders: Sequence[str]) -> None:
    """In a worker: whatever the program that started it could import, as far as the folders are there."""
    sys.path += [entry for entry in folders if entry not in sys.path and os.path.isdir(entry)]


def packed(name: str, thing: object) -> bytes:
    """Something that a program gave, for a worker that unpacks it with ``ray.cloudpickle.loads`` once it
    finds the program's modules; UserError where it cannot be sent."""
    told = f"--num-workers: '{name}' cannot be sent to workers"
    remedy = "give what makes it there, a function or class, or num_workers=0"
    with blaming(lambda raised: UserError(f"{told} ({raised}); {remedy}")):
        return ray.cloudpickle.dumps(thing)


def wait_free(num_workers: int, resources: dict[str, float], seconds: float = 5.0) -> None:
    """``check_free`` with patience: Ray counts the workers of a moment ago for another second."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check_free(num_workers, resources)
        except UserError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
