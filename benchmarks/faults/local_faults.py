"""Faults of a run in one process, and what a disk does to its files while nobody looks."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from benchmarks.faults.strikes import at_round, at_save, die, fill_disk
from lasat_ray.errors import UserError
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.loop import Trainer

Fault = Callable[[Trainer, int], None]

THREADS, TWICE = "SIGKILL, goes on where torch has two threads", "SIGKILL twice"
UPLOAD = "SIGKILL in the middle of an upload, goes on elsewhere"


def _send(number: signal.Signals) -> Fault:
    return lambda trainer, round: at_round(trainer, round, lambda: os.kill(os.getpid(), number))


def _no_memory() -> None:
    raise MemoryError


def _at_summary(trainer: Trainer, round: int) -> None:
    """Strike before summary.json is written, the run being over; ``round`` plays no part."""
    real = RunFolder.write_json

    def struck(folder: RunFolder, name: str, content: dict[str, Any]) -> None:
        if name == "summary.json":
            die()
        real(folder, name, content)

    RunFolder.write_json = struck  # type: ignore[assignment]


def _at_upload(trainer: Trainer, round: int) -> None:
    """Strike when half of a file of the first upload after ``round`` is written."""
    real = LocalFileSystem.pipe_file

    def struck(store: Any, path: str, value: bytes, **options: Any) -> Any:
        if trainer.env.round > round:
            real(store, path, value[: len(value) // 2])
            die()
        return real(store, path, value, **options)

    LocalFileSystem.pipe_file = struck


_killed: Fault = functools.partial(at_round, strike=die)
FAULTS: dict[str, Fault] = {
    "SIGKILL in an attack": _killed,
    "SIGKILL before a checkpoint is on disk": lambda trainer, round: at_save(trainer, round, "fsync"),
    "SIGKILL before a checkpoint is renamed": lambda trainer, round: at_save(trainer, round, "replace"),
    "SIGKILL before the summary is written": _at_summary,
    TWICE: _killed,
    THREADS: _killed,
    UPLOAD: _at_upload,
    "SIGTERM": _send(signal.SIGTERM),
    "SIGHUP": _send(signal.SIGHUP),
    "SIGINT": _send(signal.SIGINT),
    "hanging round": lambda trainer, round: at_round(trainer, round, lambda: time.sleep(600)),
    "MemoryError in a round": lambda trainer, round: at_round(trainer, round, _no_memory),
    "disk full (file size limit)": lambda trainer, round: at_round(trainer, round, fill_disk),
    "last checkpoint cut short, after SIGKILL": _killed,
    "bit flipped in the last checkpoint, after SIGKILL": _killed,
    "last checkpoint left under its first name, after SIGKILL": _killed,
    "records since the last checkpoint lost, after SIGKILL": _killed,
    "zeros in place of records since the last checkpoint, after SIGKILL": _killed,
}
STATUS = {
    "SIGTERM": 143,
    "SIGHUP": 143,
    "SIGINT": 130,
    "hanging round": 1,
    "MemoryError in a round": 1,
    "disk full (file size limit)": 1,
}
"""Exit status of the struck process; of all others -9, killed."""


def damage(folder: RunFolder, fault: str) -> None:
    """What a disk does to a checkpoint, or to the records that it does not count on."""
    last = folder.checkpoints / "last.safetensors"
    if fault.startswith(("records", "zeros")):
        return _damage_records(folder, b"\0" if fault.startswith("zeros") else b"")
    if not last.exists() or not (folder.checkpoints / "previous.safetensors").exists():
        return
    content = last.read_bytes()
    if fault.startswith("last checkpoint cut"):
        last.write_bytes(content[: len(content) // 2])
    elif fault.startswith("bit flipped"):
        middle = len(content) // 2
        last.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif fault.startswith("last checkpoint left"):
        os.replace(last, folder.checkpoints / "newest.safetensors")


def _damage_records(folder: RunFolder, instead: bytes) -> None:
    try:
        kept = load_checkpoint(folder.checkpoints / "last.safetensors")["metrics_offset"]
    except UserError:  # none yet
        kept = 0
    content = folder.metrics.read_bytes() if folder.metrics.exists() else b""
    folder.metrics.write_bytes(content[:kept] + instead * (len(content) - kept))
