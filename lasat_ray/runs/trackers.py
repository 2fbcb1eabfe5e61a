"""Live copies of a run's records for Weights & Biases and MLflow; both optional, off by default.

A tracker that fails is told once and left alone: a run never stops because of one. A new tracker
is a class with ``log`` and ``close`` and a line in ``TRACKERS``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lasat_ray.config.json_io import config_to_json, leaves
from lasat_ray.errors import install
from lasat_ray.runs.checkpoint import write_atomically
from lasat_ray.runs.events import step_of
from lasat_ray.runs.folder import RunFolder

FILE = "trackers.json"
"""The run's name at each tracker, so that a resumed run goes on there."""


class Tracker(Protocol):
    """An experiment tracker that hears the records of a run, for example wandb."""

    def log(self, numbers: dict[str, float], step: int) -> None: ...

    def close(self, failed: bool = False) -> None: ...


class Wandb:
    """A run of project ``lasat-ray``; where it goes is wandb's own business (WANDB_MODE, login)."""

    def __init__(self, folder: RunFolder, run_id: str):
        import wandb

        self.run = wandb.init(
            project="lasat-ray",
            name=folder.path.resolve().name,
            id=run_id,
            resume="allow",
            config=config_to_json(folder.config()),
            settings=wandb.Settings(quiet=True),  # its summary would push ours off the screen
        )

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.run.log(numbers, step=step)

    def close(self, failed: bool = False) -> None:
        self.run.finish(exit_code=int(failed))


class Mlflow:
    """A run of experiment ``lasat-ray`` at MLFLOW_TRACKING_URI, by default mlflow.db in this folder."""

    def __init__(self, folder: RunFolder, run_id: str):
        from mlflow import MlflowClient

        self.client = MlflowClient()
        known = self.client.get_experiment_by_name("lasat-ray")
        place = known.experiment_id if known else self.client.create_experiment("lasat-ray")
        query = f"tags.lasat_ray_id = '{run_id}'"
        found = self.client.search_runs([place], filter_string=query, max_results=1)
        tags = {"lasat_ray_id": run_id, "mlflow.runName": folder.path.resolve().name}
        run = found[0] if found else self.client.create_run(place, tags=tags)
        self.id = run.info.run_id
        if found:
            self.client.update_run(self.id, status="RUNNING")
            return
        for path, value in leaves(folder.config()):
            self.client.log_param(self.id, path, value)

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.client.log_metric(self.id, name.replace("@", "_"), value, step=step)

    def close(self, failed: bool = False) -> None:
        self.client.set_terminated(self.id, status="FAILED" if failed else "FINISHED")


TRACKERS: dict[str, Callable[[RunFolder, str], Tracker]] = {"wandb": Wandb, "mlflow": Mlflow}


class Trackers:
    """A callback that passes every number on, each step once."""

    def __init__(self, names: Sequence[str], folder: RunFolder, warn: Callable[[str], None]):
        self.warn = warn
        self.last: dict[str, int] = {}
        self.live: dict[str, Tracker] = {}
        run_id = _run_id(folder) if names else ""
        for name in names:
            try:
                self.live[name] = TRACKERS[name](folder, run_id)
            except Exception as error:
                self._drop(name, error)

    def on_record(self, record: dict[str, Any]) -> None:
        """A record of metrics.jsonl. After a restart of workers old ones are heard again, and skipped."""
        kind, step = record["kind"], step_of(record)
        if kind in ("data", "checkpoint"):  # words alone: which images are used, where a file lies
            return
        if step <= self.last.get(kind, -1):
            return
        self.last[kind] = step
        numbers = {
            f"{kind}/{name}": float(value)
            for name, value in record.items()
            if isinstance(value, (int, float)) and name not in ("round", "epoch")
        }
        for name, tracker in list(self.live.items()):
            try:
                tracker.log(numbers, step)
            except Exception as error:
                self._drop(name, error)

    def close(self, failed: bool = False) -> None:
        """End the run at every tracker; ``failed``: it was stopped or raised."""
        for name, tracker in list(self.live.items()):
            try:
                tracker.close(failed)
            except Exception as error:
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        self.live.pop(name, None)
        if isinstance(error, ImportError):
            told = f"is not installed; {install(name)}"
        else:
            told = f"failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        self.warn(f"--log {name}: {told}; training goes on without it")


def _run_id(folder: RunFolder) -> str:
    """The same at every resume of a folder."""
    path = folder.path / FILE
    if path.is_file():
        return str(folder.read_json(FILE)["id"])
    run_id = uuid.uuid4().hex
    write_atomically(path, (json.dumps({"id": run_id}) + "\n").encode())
    return run_id
