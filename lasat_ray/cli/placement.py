"""Where workers may lie, as the command line says it: GPU type, labels of machines, close or apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from lasat_ray.config.loss import SEVERAL
from lasat_ray.errors import UsageError, refusal

Spread = Literal["pack", "spread", "strict-pack", "strict-spread"]

_NAME = r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]*[a-zA-Z0-9])?"
_KEY = re.compile(rf"(?:{_NAME}/)?{_NAME}")
_VALUE = re.compile(rf"!?(?:{_NAME}|in\({_NAME}(?:, ?{_NAME})*\))")


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How many workers, and where they may lie; the same words for a run and for the trials of a sweep."""

    num_workers: int = 0
    """Ray Train workers; 0: none."""
    accelerator_type: str | None = None
    """Workers go to machines with this GPU, as Ray names it: H100, A100, L4, ..."""
    node_labels: Annotated[tuple[str, ...], SEVERAL] = ()
    """Workers go to machines that Ray was started on with such labels: region=eu disk=!slow."""
    placement: Spread = "pack"
    """Workers lie close together or apart; strict: on one machine, or each on its own."""


class Asked(Protocol):
    """The options of a run that this file looks at."""

    @property
    def num_workers(self) -> int: ...
    @property
    def min_workers(self) -> int | None: ...
    @property
    def device(self) -> str: ...
    @property
    def accelerator_type(self) -> str | None: ...
    @property
    def node_labels(self) -> tuple[str, ...]: ...
    @property
    def placement(self) -> str: ...
    @property
    def gpus_per_worker(self) -> float: ...


def labels_of(words: Sequence[str]) -> dict[str, str]:
    """``("region=eu", "disk=!slow")`` as Ray's label selector; UsageError for what is none."""
    labels: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            remedy = "write KEY=VALUE, KEY=!VALUE, 'KEY=in(A,B)' or 'KEY=!in(A,B)'"
            raise refusal("--node-labels", f"'{word}'", "is no label", remedy)
        if key in labels:
            raise refusal("--node-labels", f"'{key}'", "stands twice", "join its values: KEY=in(A,B)")
        labels[key] = value
    return labels


def check_placement(options: Asked) -> None:
    """UsageError where a wish about the workers cannot be met by any cluster, or has no effect."""
    labels_of(options.node_labels)
    if (options.min_workers or 0) > options.num_workers:
        shown = f"is more than --num-workers {options.num_workers}, which is the most"
        raise refusal("--min-workers", options.min_workers, shown, "write --num-workers 2..8, say")
    check_share(options.gpus_per_worker, options.num_workers)
    wishes = {
        "--accelerator-type": options.accelerator_type,
        "--node-labels": " ".join(options.node_labels),
        "--placement": None if options.placement == "pack" else options.placement,
        "--gpus-per-worker": None if options.gpus_per_worker == 1 else f"{options.gpus_per_worker:g}",
    }
    for option, value in wishes.items():
        if value and not options.num_workers:
            raise refusal(option, f"'{value}'", "has no effect without Ray workers", "add --num-workers N")
    for option in ("--accelerator-type", "--gpus-per-worker"):
        if wishes[option] and options.device == "cpu":
            raise refusal(option, f"'{wishes[option]}'", "has no effect with --device cpu", "leave it out")


def check_share(gpus_per_worker: float, num_workers: int) -> None:
    """UsageError for a share of a GPU that a worker cannot have: NCCL wants a device for each."""
    if not 0 < gpus_per_worker <= 1:  # nan too
        told = f"{gpus_per_worker:g} is out of range; a worker computes on one GPU or a share of it"
        raise UsageError(f"--gpus-per-worker: {told}, give more than 0 and at most 1")
    if gpus_per_worker < 1 and num_workers > 1:
        raise UsageError(
            f"--gpus-per-worker: {gpus_per_worker:g} lets {num_workers} workers share a GPU, where NCCL "
            "wants one for each; leave it out, or give --num-workers 1"
        )
