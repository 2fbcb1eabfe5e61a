"""Train in this process: the loop with one worker, no Ray."""

from __future__ import annotations

import threading
from typing import Any

import torch

from lasat_ray.config import TrainConfig
from lasat_ray.errors import UsageError
from lasat_ray.process_group import ProcessGroup, indexed
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.recorder import RecordListener
from lasat_ray.training.context import AfterEpoch, RunContext
from lasat_ray.training.loop import Trainer
from lasat_ray.training.stopping import sigterm_asks
from lasat_ray.training.watchdog import Watchdog


def choose_device(wanted: str) -> torch.device:
    """auto, cpu or cuda -> a device that exists, a GPU with its index; UsageError where there is none."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UsageError("--device: cuda is not here, PyTorch sees no GPU; use --device cpu or auto")
    return indexed("cuda" if available and wanted != "cpu" else "cpu")


def train_here(
    config: TrainConfig,
    folder: RunFolder,
    *,
    device: str = "auto",
    listener: RecordListener | None = None,
    checkpoint_every: int | None = None,
    stop_after: int | None = None,
    stop_epoch: int | None = None,
    after_epoch: AfterEpoch | None = None,
    hang_timeout: float | None = None,
    accept_changed_data: bool = False,
    trust: bool = False,
    log_actions: bool = False,
) -> dict[str, Any]:
    """Run or continue ``folder``'s training; returns the summary (empty if stopped early).

    ``stop_after`` counts rounds, ``stop_epoch`` epochs, both from the start of the run. SIGTERM saves
    after the round and raises Stopped; InUse while another process trains in ``folder``. After
    ``hang_timeout`` seconds without a round the process ends with status 1. UserError where the images are
    not those of the last checkpoint, unless ``accept_changed_data``. ``trust``: run a teacher's code.
    ``log_actions``: keep every rewarded action, for off-policy evaluation.
    """
    asked, watchdog = threading.Event(), Watchdog(hang_timeout)
    place = RunContext(
        group=ProcessGroup(),
        device=choose_device(device),
        folder=folder,
        listener=listener,
        checkpoint_every=checkpoint_every,
        after_epoch=after_epoch,
        stop_asked=asked.is_set,
        watchdog=watchdog,
        accept_changed_data=accept_changed_data,
        trust=trust,
        log_actions=log_actions,
    )
    with folder.lock(), sigterm_asks(asked.set), watchdog.watching():
        trainer = Trainer(config, place)
        return trainer.run(stop_after if stop_epoch is None else stop_epoch * trainer.rounds_per_epoch)
