"""Writes what happened: metrics.jsonl, one line per round and per epoch, and TensorBoard events.

Rounds are kept on the device and written in blocks, so that the loop waits for nothing.
"""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lasat_ray.config.units import Grid
from lasat_ray.errors import UserError, not_written
from lasat_ray.process_group import ProcessGroup, to_host
from lasat_ray.runs.events import Events
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.records import cut_back, records_in, sync
from lasat_ray.types import RoundReport

RecordListener = Callable[[dict[str, Any]], None]
_QUANTILES = (5, 25, 50, 75, 95)
_RESUME = ", then --resume the run"
_BLOCKS = 20  # writes an epoch: one host sync and one small all-reduce each


class Recorder:
    """Collective: every worker adds its share, the first one writes."""

    def __init__(
        self,
        folder: RunFolder,
        group: ProcessGroup,
        rounds_per_epoch: int,
        listener: RecordListener | None,
        grid: Grid | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
    ):
        self.folder = folder
        self.grid = {name: values for name, values in (grid or {}).items() if len(values) > 1}
        self._first_option = _first_options(grid or {})
        self.group = group
        self.device = device
        self.rounds_per_epoch = rounds_per_epoch
        self.listener = listener
        self.option_counts: Tensor | None = None
        """This worker's share of how often each strategy option was chosen this epoch, [sum V_k]."""
        self.failure: UserError | None = None
        """Why a record could not be written; the workers agree on it after the round."""
        self._pending: list[RoundReport] = []
        self.events = Events(folder.path / "tensorboard", grid or {})

    def rewind(self, offset: int, round: int = 0) -> list[dict[str, Any]]:
        """Cut metrics.jsonl back to where a checkpoint was taken, before ``round``, so that every
        round stands once. Returns warnings, for the first worker, of records that were lost by then."""
        self._pending = []
        self.events.rewind(round)
        return cut_back(self.folder.metrics, offset, round) if self.group.is_first else []

    def sync(self) -> None:
        """What was written is on the disk, before a checkpoint that counts on it; the first worker only."""
        try:
            if self.folder.metrics.exists():
                sync(self.folder.metrics)
        except OSError as error:
            raise self._refused(error) from error

    def check_not_lost(self, first_due: int) -> None:
        """For a run without checkpoint: UserError where its records reach beyond round ``first_due``, the
        first one to be saved. It would begin anew, over the records."""
        rounds = [record["round"] for record in records_in(self.folder.metrics) if record["kind"] == "round"]
        if rounds and max(rounds) >= first_due:
            raise UserError(
                f"{self.folder.checkpoints}: holds no checkpoint, but records reach round {max(rounds)}; "
                "put last.safetensors back from a copy, or start anew with another --out"
            )

    @property
    def offset(self) -> int:
        """Size of metrics.jsonl so far, in bytes."""
        return self.folder.metrics.stat().st_size if self.folder.metrics.exists() else 0

    def add(self, report: RoundReport) -> None:
        self._pending.append(report)
        counts = report.option_counts
        self.option_counts = counts if self.option_counts is None else self.option_counts + counts
        if len(self._pending) >= max(1, self.rounds_per_epoch // _BLOCKS):
            self.flush()

    def flush(self) -> None:
        """Write the pending rounds: one sum over workers for all of them."""
        if not self._pending:
            return
        rows = [list(report.sums.values()) for report in self._pending]
        flat = torch.stack([value for row in rows for value in row])
        counts = [report.option_counts.to(flat) for report in self._pending] if self.grid else []
        summed = self.group.sum(torch.cat([flat, *counts]))
        alike = torch.stack([v.double() for r in self._pending for v in r.scalars.values()])
        told = to_host(torch.cat([summed, alike])).tolist()  # one wait for all of it
        totals, scalars = iter(told[: len(summed)]), iter(told[len(summed) :])
        records: list[dict[str, Any]] = []
        for report in self._pending:
            record: dict[str, Any] = {
                "kind": "round",
                "round": report.round,
                "epoch": (report.round + 1) / self.rounds_per_epoch,
            }
            if report.progress is not None:
                record["progress"] = report.progress
            record |= _deviations({name: next(totals) / report.global_size for name in report.sums})
            records.append(record | {name: next(scalars) for name in report.scalars})
        for record, report in zip(records, self._pending, strict=True):
            if self.grid:
                record |= self._quantiles([next(totals) for _ in report.option_counts])
            self.write(record)
        self._pending = []

    def _quantiles(self, counts: list[float]) -> dict[str, float]:
        """Quantiles of every field with a choice, from how often each option was taken in a round."""
        told: dict[str, float] = {}
        for name, values in self.grid.items():
            first = self._first_option[name]
            taken = counts[first : first + len(values)]
            told |= {f"{name}_p{q:02}": quantile(values, taken, q / 100) for q in _QUANTILES}
        return told

    def sum_option_counts(self) -> list[float]:
        """How often each strategy option was chosen this epoch, over all workers; collective."""
        return [] if self.option_counts is None else self.group.sum(self.option_counts).tolist()

    def write(self, record: dict[str, Any]) -> None:
        """Append one line, tell the listener, feed TensorBoard; the first worker only."""
        if not self.group.is_first:
            return
        try:
            with open(self.folder.metrics, "a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            self.failure = self.failure or self._refused(error)
        try:
            self.events.write(record)
        except OSError as error:
            place = error.filename or self.events.folder
            self.failure = self.failure or not_written(place, error, then=_RESUME)
        self.tell(record)

    def tell(self, record: dict[str, Any]) -> None:
        """Tell the listener alone; the first worker only."""
        if self.group.is_first and self.listener:
            self.listener(record)

    def _refused(self, error: OSError) -> UserError:
        return not_written(self.folder.metrics, error, then=_RESUME)

    def by_first(self, action: Callable[[], object]) -> None:
        """Let the first worker do what only one may; UserError on every worker where it cannot, or could
        not write a record before. Collective: else the others would wait for it for ever."""
        error = self.failure
        if self.group.is_first and error is None:
            try:
                action()
                error = self.failure
            except UserError as caught:
                error = caught
        self.group.raise_together(error, self.device)

    def close(self) -> None:
        """UserError where the last events cannot be written."""
        try:
            self.events.close()
        except OSError as error:
            raise not_written(self.events.folder, error) from error


def _deviations(means: dict[str, float]) -> dict[str, float]:
    """``NAME_std`` arrives as the mean of squares and leaves as the standard deviation of NAME."""

    def deviation(name: str, square: float) -> float:
        variance = square - means[name.removesuffix("_std")] ** 2
        # Equal values leave rounding errors that depend on the number of workers.
        return math.sqrt(variance) if variance > 1e-12 * square else 0.0

    return {name: deviation(name, v) if name.endswith("_std") else v for name, v in means.items()}


def quantile(values: Sequence[float], counts: Sequence[float], share: float) -> float:
    """The least value that at least ``share`` of the images were given or stayed under."""
    order = sorted(range(len(values)), key=lambda n: values[n])
    passed, enough = 0.0, share * sum(counts)
    for n in order:
        passed += counts[n]
        if passed >= enough and counts[n]:
            return values[n]
    return values[order[-1]]


def _first_options(grid: Grid) -> dict[str, int]:
    """Where each field's options begin in the counts."""
    starts = itertools.accumulate((len(values) for values in grid.values()), initial=0)
    return dict(zip(grid, starts, strict=False))


def follow(
    metrics: Path,
    listener: RecordListener,
    done: threading.Event,
    poll_s: float = 0.2,
    *,
    beside: Path | None = None,
) -> None:
    """Tell ``listener`` every record that another process adds to ``metrics`` until ``done``, and the rest.

    ``beside``: a second file, of checkpoints; each is told after the records of the rounds that it holds.
    A restart cuts ``metrics`` back to its last checkpoint; rounds heard before are heard again.
    """
    tail, second = _Tail(metrics), _Tail(beside)
    later: list[dict[str, Any]] = []
    while True:
        last_look = done.wait(poll_s)
        figures = [*later, *tail.records()]
        checkpoints, later = list(second.records()), []
        if checkpoints:  # what was written before them may have come while they were read, and more
            for record in tail.records():
                early = last_look or _rounds_before(record) < checkpoints[-1]["round"]
                (figures if early else later).append(record)
        for record in figures:
            while checkpoints and _rounds_before(record) >= checkpoints[0]["round"]:
                listener(checkpoints.pop(0))
            listener(record)
        for record in checkpoints:
            listener(record)
        if last_look:
            return


def _rounds_before(record: dict[str, Any]) -> float:
    """A checkpoint of at most so many rounds was written before ``record``: rounds are numbered from 0."""
    kind, round = record.get("kind"), record.get("round", 0)
    return math.inf if kind == "final" else round if kind == "round" else round - 1


class _Tail:
    """What is appended to a file of records from now on."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.position = path.stat().st_size if path and path.exists() else 0

    def records(self) -> Iterator[dict[str, Any]]:
        """Those that are whole and were not given yet."""
        if self.path is None or not self.path.exists():
            return
        self.position = min(self.position, self.path.stat().st_size)
        with open(self.path) as file:
            file.seek(self.position)
            for line in file:
                if not line.endswith("\n"):
                    return
                self.position += len(line.encode())
                yield json.loads(line)
