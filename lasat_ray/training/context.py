"""Where a copy of the training loop runs, and what it writes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from lasat_ray.data import Prefetcher, thread_prefetch
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.recorder import RecordListener
from lasat_ray.training.stopping import StopAsked
from lasat_ray.training.watchdog import Watchdog

AfterEpoch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """Where this copy of the loop runs, and what it writes to."""

    group: ProcessGroup
    device: torch.device
    folder: RunFolder
    listener: RecordListener | None = None
    """Hears every record as it is written; first worker only."""
    after_epoch: AfterEpoch | None = None
    """Called on every worker with the validation record, for example to report to Ray."""
    checkpoint_every: int | None = None
    """Rounds between checkpoints beyond those after each validation."""
    prefetch: Prefetcher = thread_prefetch
    """Who reads a streamed data set before its rounds come."""
    accept_changed_data: bool = False
    """Resume although the images are not those of the checkpoint."""
    trust: bool = False
    """Run the code that a teacher's checkpoint names."""
    log_actions: bool = False
    """Keep what the strategist chose and earned, image by image; a run that was begun so goes on so."""
    stop_asked: StopAsked = lambda: False
    """Looked at after every round; where any worker's says so, all save and end with ``Stopped``."""
    watchdog: Watchdog = field(default_factory=Watchdog)
    """Hears a beat before every round and every batch of an evaluation."""
