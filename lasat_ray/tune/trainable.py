"""What a Tune trial runs: the trainer in its own process, or on Ray Train workers that it starts.

The run folder is the trial's whole state. A trial that was lost goes on from its last epoch, and one
that is finished only reports, so Tune needs no checkpoints of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from lasat_ray.cluster.local import train_here
from lasat_ray.cluster.placement import ANYWHERE, Placement
from lasat_ray.cluster.ray_train import train_on_ray
from lasat_ray.cluster.session import wait_free, worker_resources
from lasat_ray.errors import UserError, described, not_written
from lasat_ray.plugins import blamed
from lasat_ray.reporting.study import read_records
from lasat_ray.runs.begin import holds_run
from lasat_ray.runs.checkpoint import load_checkpoint, write_atomically
from lasat_ray.runs.folder import RunFolder
from lasat_ray.tune.storage import TRIALS, Store
from lasat_ray.tune.trial import Outcome, Trial
from lasat_ray.update.cost import counted_passes

OUTCOME = "outcome.json"
START = "start.json"
"""In a trial that went on from another: the round where its own training begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResources:
    """Where and with what a trial runs; nothing here changes what it computes.

    ``cpus``, ``gpus``: of the trial (in one process) or of each of its ``num_workers``; ``placement``: on
    which machines these may lie.
    """

    out: str
    cwd: str
    num_workers: int = 0
    cpus: float = 1.0
    gpus: float = 0.0
    max_failures: int = 3
    placement: Placement = ANYWHERE

    @classmethod
    def of(cls, told: dict[str, Any]) -> TrialResources:
        """What ``asdict`` made of one."""
        return cls(**{**told, "placement": Placement(**told["placement"])})


def run_job(job: dict[str, Any]) -> None:
    """The trainable. Its last report carries the outcome; an error is an outcome too, since Tune would
    only repeat it. A process that dies is Tune's to start again."""
    trial, place = Trial.from_json(json.loads(job["trial"])), TrialResources.of(job["place"])
    if os.path.isdir(place.cwd):
        os.chdir(place.cwd)  # relative paths of data and plug-ins mean what the user meant
    try:
        outcome = run_trial(trial, place, tell)
    except BaseException as error:
        known = blamed(error)
        if known is None and not isinstance(error, Exception):
            raise  # Tune ends this thread by SystemExit
        told = str(known or described(error))
        if isinstance(error, UserError):
            told = str(error)
        elif isinstance(error, OSError) and known is None:
            told = str(not_written(error.filename or f"{place.out}/{TRIALS}/{trial.name}", error))
        outcome = Outcome(status="failed", error=" ".join(told.split()))
        detail = {**outcome.to_json(), "traceback": traceback.format_exc()}
        with suppress(UserError):  # the disk may be what failed; the driver hears of it all the same
            Store(place.out).write_json(f"{TRIALS}/{trial.name}.failed.json", detail)
    tune.report({**_figures(outcome), "outcome": json.dumps(outcome.to_json())})


def tell(outcome: Outcome) -> None:
    """Report a validated epoch to Tune, whose scheduler may end the process here."""
    tune.report({**_figures(outcome), "so_far": json.dumps(outcome.to_json())})


def _figures(outcome: Outcome) -> dict[str, float]:
    """What Tune's schedulers compare."""
    if not outcome.curve:
        return {}
    epoch, clean, robust = outcome.curve[-1]
    return {"epoch": epoch, "val_clean_acc": clean, "val_robust_acc": robust}


def run_trial(trial: Trial, place: TrialResources, tell: Callable[[Outcome], None]) -> Outcome:
    """Train or continue the trial's run folder; ``tell`` hears how it stands after every validation."""
    store = Store(place.out)
    with store.folder(trial.name) as path:
        folder = _prepare(trial, path, store)
        if (known := outcome_in(folder)) is not None:
            return known
        if _curve(folder):
            tell(outcome_of(trial, folder, "running"))

        def after_epoch(_: dict[str, Any]) -> None:
            store.send(trial.name, path)
            tell(outcome_of(trial, folder, "running"))

        _train(trial, folder, place, after_epoch)
        outcome = outcome_of(trial, folder, "finished", place)
        folder.write_json(OUTCOME, outcome.to_json())
        store.send(trial.name, path)
    return outcome


def _train(
    trial: Trial, folder: RunFolder, place: TrialResources, after_epoch: Callable[[dict[str, Any]], None]
) -> None:
    device = "cuda" if place.gpus else "cpu"
    if not place.num_workers:
        torch.set_num_threads(max(1, int(place.cpus)))
        train_here(trial.config, folder, device=device, after_epoch=after_epoch, stop_epoch=trial.stop_epoch)
        return

    def listen(record: dict[str, Any]) -> None:
        if "val_clean_acc" in record and record["kind"] == "epoch":
            after_epoch(record)

    resources = worker_resources(place.num_workers, place.cpus, bool(place.gpus), gpus_per_worker=place.gpus)
    wait_free(place.num_workers, resources, 60.0)  # the trial before may still be letting go
    train_on_ray(
        trial.config,
        folder,
        num_workers=place.num_workers,
        cpus_per_worker=place.cpus,
        gpus_per_worker=place.gpus or 1.0,
        placement=place.placement,
        device=device,
        max_failures=place.max_failures,
        listener=listen,
        stop_epoch=trial.stop_epoch,
    )


def _prepare(trial: Trial, path: Path, store: Store) -> RunFolder:
    """The trial's run folder, made if need be; a parent's state is copied once, whole or not at all."""
    if path.exists() and not holds_run(path):
        shutil.rmtree(path)  # a process died while it made the folder
    if path.exists():
        return RunFolder.open(path)
    building = path.with_name(f".{path.name}.new")
    shutil.rmtree(building, ignore_errors=True)
    RunFolder.create(building, trial.config, trial=trial.name, parent=trial.parent)
    if trial.parent:
        _inherit(trial.parent, building, store)
    os.replace(building, path)
    return RunFolder.open(path)


def _inherit(parent: str, folder: Path, store: Store) -> None:
    """Checkpoints and records of ``parent``: offsets in a checkpoint count from the run's first line."""
    source = folder / ".parent"
    if not store.fetch(parent, source):
        raise UserError(f"{parent}: the trial to go on from is not in '{store.out}'; run it again")
    for name in ("metrics.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors"):
        if (source / name).exists():
            write_atomically(folder / name, (source / name).read_bytes())
    shutil.rmtree(source)
    start = load_checkpoint(folder / "checkpoints" / "last.safetensors")["round"]
    write_atomically(folder / START, json.dumps({"round": start}).encode())


def outcome_in(folder: RunFolder) -> Outcome | None:
    """The outcome of a finished trial."""
    path = folder.path / OUTCOME
    return Outcome.from_json(json.loads(path.read_text())) if path.is_file() else None


def _curve(folder: RunFolder) -> tuple[tuple[int, float, float], ...]:
    return _curve_of(read_records(folder.metrics))


def _curve_of(records: list[dict[str, Any]]) -> tuple[tuple[int, float, float], ...]:
    points = []
    for record in records:
        robust = [v for k, v in record.items() if k.startswith("val_robust_acc_pgd")]
        if record["kind"] == "epoch" and robust:
            points.append((int(record["epoch"]), float(record["val_clean_acc"]), float(robust[0])))
    return tuple(points)


def outcome_of(trial: Trial, folder: RunFolder, status: Any, place: TrialResources | None = None) -> Outcome:
    """What the run folder says so far; passes are this trial's own, without its parent's."""
    records = read_records(folder.metrics)
    rounds = [record for record in records if record["kind"] == "round"]
    epochs = [record for record in records if record["kind"] == "epoch"]
    first = folder.read_json(START)["round"] if (folder.path / START).exists() else 0
    target, strategy = counted_passes(trial.config, rounds, first)
    return Outcome(
        status=status,
        curve=_curve_of(records),
        summary=folder.summary(),
        train_seconds=epochs[-1]["train_seconds"] if epochs else 0.0,
        target_passes=target,
        strategy_passes=strategy,
        updates=sum("reward" in record for record in rounds),
        chosen=_chosen(rounds),
        place={} if place is None else _where(place),
    )


def _chosen(rounds: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Mean of each strategy field in the first and in the last epoch."""
    chosen: dict[str, tuple[float, float]] = {}
    if not rounds:
        return chosen
    first = [record for record in rounds if record["epoch"] <= 1]
    last = [record for record in rounds if record["epoch"] > rounds[-1]["epoch"] - 1]
    for name in ("eps", "num_steps", "step_size"):
        if first and last and name in last[0]:
            means = [sum(record[name] for record in part) / len(part) for part in (first, last)]
            chosen[name] = (means[0], means[1])
    return chosen


def _where(place: TrialResources) -> dict[str, Any]:
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else None
    shown = {name: value for name, value in asdict(place).items() if name not in ("out", "cwd")}
    return {"host": socket.gethostname(), "node": node, **shown}
