"""The same loop on Ray Train workers: one shard each, gradients summed by torch.distributed.

Our own checkpoints in the run folder are the only ones: Ray restarts the workers, the loop finds
its newest whole checkpoint. So a damaged file falls back to the one before, a reused name resumes
nothing, and the summary travels as the return value.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import RayError

from lasat_ray.cluster.gauges import Gauges
from lasat_ray.cluster.placement import ANYWHERE, Placement
from lasat_ray.cluster.prefetch_on_ray import ray_data_prefetch
from lasat_ray.cluster.scaling import RESIZE_S, scaling_of
from lasat_ray.cluster.session import find_modules_in, module_folders, packed
from lasat_ray.cluster.user_errors import UserErrorRelay
from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import config_from_json, config_to_json
from lasat_ray.errors import UserError, told_elsewhere
from lasat_ray.models.given import given_among, register
from lasat_ray.plugins import blamed
from lasat_ray.process_group import ProcessGroup, indexed
from lasat_ray.runs.callbacks import kept_error
from lasat_ray.runs.cleanup import has_rounds
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.recorder import RecordListener, follow
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from lasat_ray.training.stopping import sigterm_asks
from lasat_ray.training.watchdog import Watchdog

_STORAGE = ".ray"  # of Ray Train itself, in the run folder while it trains
_TOLD = "told.jsonl"  # in it: what the first worker tells the driver alone


def train_on_ray(
    config: TrainConfig,
    folder: RunFolder,
    *,
    num_workers: int,
    min_workers: int | None = None,
    cpus_per_worker: float | None = None,
    device: str = "auto",
    max_failures: int = 3,
    listener: RecordListener | None = None,
    gpus_per_worker: float = 1.0,
    placement: Placement = ANYWHERE,
    stop_epoch: int | None = None,
    hang_timeout: float = 1800.0,
    start_failures: int = 0,
    accept_changed_data: bool = False,
    log_actions: bool = False,
    trust: bool = False,
    resize_s: float = RESIZE_S,
) -> dict[str, Any]:
    """Run or continue ``folder``'s training on a connected Ray; returns the summary (empty where
    ``stop_epoch`` ends it early).

    A worker that plays no round for ``hang_timeout`` seconds, or whose peer is silent for so long, counts
    as lost. With ``min_workers`` Ray goes on with so many and up to ``num_workers``, and looks every
    ``resize_s`` seconds for more. ``start_failures``: how often the workers may fail to start, where a
    machine may come back. UserError in one line when workers cannot be had, start too late, or keep failing;
    Stopped after SIGTERM; InUse while another process trains in ``folder``.
    """
    with folder.lock(), sigterm_asks(folder.stop_file.touch):
        folder.stop_file.unlink(missing_ok=True)
        shutil.rmtree(folder.path / _STORAGE, ignore_errors=True)  # of a driver that was killed
        try:
            trainer = _ray_trainer(
                config,
                folder,
                {
                    "stop_epoch": stop_epoch,
                    "hang_timeout": hang_timeout,
                    "accept_changed_data": accept_changed_data,
                    "log_actions": log_actions,
                    "trust": trust,
                },
                scaling=scaling_of(
                    num_workers,
                    min_workers,
                    cpus_per_worker=cpus_per_worker,
                    gpus_per_worker=gpus_per_worker,
                    device=device,
                    placement=placement,
                    resize_s=resize_s,
                ),
                failures=ray.train.FailureConfig(
                    # Ray retries a group that cannot start for ever unless the controller's limit is set.
                    max_failures=max_failures,
                    controller_failure_limit=start_failures,
                ),
            )
            with _following(folder, listener):
                outcome = _fitted(trainer)
        except (ray.train.TrainingFailedError, RayError) as error:
            raise _told(error, folder) from error
        finally:
            shutil.rmtree(folder.path / _STORAGE, ignore_errors=True)
            folder.stop_file.unlink(missing_ok=True)
    if "error" in outcome:
        raise told_elsewhere(outcome["error"], outcome["status"])
    return outcome["summary"]


def _fitted(trainer: ray.train.torch.TorchTrainer) -> dict[str, Any]:
    """What the first worker returned. Ctrl-C is a KeyboardInterrupt here, as everywhere.

    In the main thread Ray Train would take the signal and end this process with status 1, without a word;
    so it works in another.
    """
    if threading.current_thread() is not threading.main_thread():
        return trainer.fit().return_value
    done: list[Any] = []

    def fit() -> None:
        try:
            done.append(trainer.fit().return_value)
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=fit, daemon=True, name="ray-train")
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
    (outcome,) = done
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _ray_trainer(
    config: TrainConfig,
    folder: RunFolder,
    job: dict[str, Any],
    *,
    scaling: ray.train.ScalingConfig,
    failures: ray.train.FailureConfig,
) -> ray.train.torch.TorchTrainer:
    """Ray's trainer of ``worker_loop``; ``job`` holds how long to train, and when to call it hung."""
    timeout = job["hang_timeout"]
    # Of a process that is frozen whole, which can neither run its watchdog nor answer Ray.
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(timeout)
    nets = nets_to_send((config.model, config.strategy_model, config.teacher_model))
    where = {"folder": str(folder.path.resolve()), "cwd": os.getcwd(), "modules": module_folders()}
    return ray.train.torch.TorchTrainer(
        worker_loop,
        train_loop_config={"config": config_to_json(config), "nets": nets, **where, **job},
        torch_config=ray.train.torch.TorchConfig(timeout_s=math.ceil(timeout)),
        scaling_config=scaling,
        run_config=ray.train.RunConfig(
            name=uuid.uuid4().hex,  # never a name seen before: Ray would silently resume its state
            storage_path=str((folder.path / _STORAGE).resolve()),
            failure_config=failures,
            logging_config=ray.train.LoggingConfig(log_level="CRITICAL"),
        ),
    )


def nets_to_send(names: Collection[str | None]) -> dict[str, bytes]:
    """The nets that were given as objects, for the workers; UserError for one that cannot be sent."""
    return {name: packed(name, net) for name, net in given_among(names).items()}


def worker_loop(job: dict[str, Any]) -> dict[str, Any]:
    """What every Ray worker runs. Errors that are the user's to mend come back as values: raised alone,
    Ray would restart the workers to meet the same error again (see ``UserErrorRelay``)."""
    if os.path.isdir(job["cwd"]):
        os.chdir(job["cwd"])  # relative paths of data and plug-ins mean what the user meant
    find_modules_in(job["modules"])
    register({name: ray.cloudpickle.loads(net) for name, net in job["nets"].items()})
    context = ray.train.get_context()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // context.get_local_world_size()))
    group = ProcessGroup(context.get_world_rank(), context.get_world_size())
    folder, watchdog = RunFolder(Path(job["folder"])), Watchdog(job["hang_timeout"])
    place = RunContext(
        group=group,
        device=indexed(ray.train.torch.get_device()),
        folder=folder,
        listener=partial(_tell, folder, Gauges(folder.path.name)),
        after_epoch=_report,
        prefetch=ray_data_prefetch,
        stop_asked=folder.stop_file.exists if group.is_first else lambda: False,
        watchdog=watchdog,
        accept_changed_data=job.get("accept_changed_data", False),
        log_actions=job.get("log_actions", False),
        trust=job.get("trust", False),
    )
    user_errors = UserErrorRelay(folder.path / _STORAGE)
    # A writer that was given up may still be ending.
    alone = folder.lock("writer", patience_s=60.0) if group.is_first else nullcontext()
    trainer: Trainer | None = None
    try:
        if known := user_errors.first():
            raise told_elsewhere(known["error"], known["status"])
        with alone, watchdog.watching():
            trainer = Trainer(config_from_json(job["config"]), place)
            stop = job["stop_epoch"]
            return {"summary": trainer.run(None if stop is None else stop * trainer.rounds_per_epoch)}
    except UserError as error:
        return user_errors.publish(group.rank, group.size, error)
    except BaseException as error:  # sys.exit in a plug-in would look like a worker that was lost
        round = trainer.env.round if trainer else 0
        found = blamed(error) or user_errors.met_again(group.rank, round, error)
        if found is None:
            raise
        return user_errors.publish(group.rank, group.size, found)


def _tell(folder: RunFolder, gauges: Gauges, record: dict[str, Any]) -> None:
    """Hand a record, which only the first worker writes, to the driver and to the cluster's metrics."""
    gauges(record)
    _tell_driver(folder, record)


def _report(record: dict[str, Any]) -> None:
    """Tell Ray Train (and a Tune trial around it) about a validated epoch; every rank calls it."""
    ray.train.report({name: value for name, value in record.items() if isinstance(value, (int, float))})


@contextmanager
def _following(folder: RunFolder, listener: RecordListener | None) -> Iterator[None]:
    """Hand the driver's listener every record that the first worker writes, while it writes them. What the
    listener raises asks the workers to save and end, and is raised at the end of the block."""
    if listener is None:
        yield
        return
    done = threading.Event()
    with kept_error(folder.stop_file.touch) as run:
        beside = folder.path / _STORAGE / _TOLD
        thread = threading.Thread(
            target=follow,
            args=(folder.metrics, lambda record: run(partial(listener, record)), done),
            kwargs={"beside": beside},
            daemon=True,
        )
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _tell_driver(folder: RunFolder, record: dict[str, Any]) -> None:
    """What stands in no file that the driver follows: that a checkpoint is whole."""
    if record["kind"] == "checkpoint":
        with open(folder.path / _STORAGE / _TOLD, "a") as file:
            file.write(json.dumps(record) + "\n")


def _told(error: Exception, folder: RunFolder) -> UserError:
    """One line out of a failed run: the user's mistake, else the innermost cause and how to go on."""
    if known := UserErrorRelay(folder.path / _STORAGE).first():
        return told_elsewhere(known["error"], known["status"])
    failures = getattr(error, "worker_failures", None) or {}
    cause: BaseException = next(iter(failures.values()), error)
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line for line in str(cause).strip().splitlines() if line.strip()]
    told = lines[-1].strip().rstrip(".") if lines else type(cause).__name__
    remedy = f"continue with --resume {folder.path}" if has_rounds(folder.path) else "start it again"
    return UserError(f"training failed on the workers: {told}; {remedy}")
