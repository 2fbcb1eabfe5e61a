"""TensorBoard events of a run: scalars, histograms of the chosen strategies, pictures of the probe.

Every event's step is the round that it was written after, so that a resumed run can name the first
step that is written anew; TensorBoard drops what an interrupted process wrote from there on.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import threading
from pathlib import Path
from typing import Any

from torch import Tensor

from lasat_ray.config.units import Grid

_SHARED = "/dev/shm"
CLOSE_S = 30.0
"""Most seconds that the last events may take to reach the disk."""


class Events:
    """One process' event file in ``folder``; opened with the first event."""

    def __init__(self, folder: Path, grid: Grid):
        self.folder = folder
        self.grid = grid
        self.first_round = 0
        self._files = 0
        self._writer: Any = None

    def write(self, record: dict[str, Any]) -> None:
        """The numbers of a record of metrics.jsonl; of an epoch also how often each value was chosen."""
        step = step_of(record)
        for name, value in record.items():
            if isinstance(value, (int, float)) and name not in ("round", "epoch") and math.isfinite(value):
                self._open().add_scalar(f"{record['kind']}/{name}", value, step)
        for name, counts in record.get("options", {}).items():
            if len(self.grid.get(name, ())) > 1:
                self._histogram(f"strategy/{name}", self.grid[name], counts, step)

    def pictures(self, rows: dict[str, Tensor], step: int) -> None:
        """One strip of images a name; [P,C,H,W] in [0,1] each."""
        for name, x in rows.items():
            self._open().add_images(f"probe/{name}", x.float().cpu().numpy(), step)

    def rewind(self, round: int) -> None:
        """Events of ``round`` and later are void; what follows goes to a file of its own."""
        self.close()
        self._writer, self.first_round, self._files = None, round, self._files + 1

    def flush(self) -> None:
        """Onto the disk, so that a checkpoint never stands without the events before it."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """OSError where the writer's thread does not end: its queue would keep the process at its end too."""
        if self._writer is None:
            return
        failed: list[Exception] = []

        def close() -> None:
            try:
                self._writer.close()
            except Exception as error:
                failed.append(error)

        closing = threading.Thread(target=close, daemon=True, name="close-events")
        closing.start()
        closing.join(CLOSE_S)
        if closing.is_alive():
            writer = self._writer.file_writer.event_writer
            writer._closed = True  # at Python's end it would wait for its thread once more
            writer._event_queue.cancel_join_thread()
            raise OSError(errno.EIO, "the thread that writes events does not end", str(self.folder))
        if failed:
            raise failed[0]

    def _histogram(self, tag: str, values: tuple[float, ...], counts: list[float], step: int) -> None:
        """A bucket a value; TensorBoard wants each bucket's upper end, in order."""
        pairs = sorted(zip(values, counts, strict=True))
        middles = [(a + b) / 2 for (a, _), (b, _) in itertools.pairwise(pairs)]
        width = pairs[-1][0] - middles[-1]
        total = sum(counts)
        if not total:
            return
        self._open().add_histogram_raw(
            tag,
            min=pairs[0][0],
            max=pairs[-1][0],
            num=total,
            sum=sum(v * c for v, c in pairs),
            sum_squares=sum(v * v * c for v, c in pairs),
            bucket_limits=[*middles, pairs[-1][0] + width],
            bucket_counts=[c for _, c in pairs],
            global_step=step,
        )

    def _open(self) -> Any:
        """The writer; OSError where its thread has died, since its queue would fill and block for ever."""
        if self._writer is None:
            from tensorboardX import SummaryWriter  # late: a second of imports

            again = any(self.folder.glob("*tfevents*"))
            try:
                self._writer = SummaryWriter(
                    str(self.folder),
                    purge_step=self.first_round if again else None,
                    # Names carry whole seconds only; a quick restart must not write over its forerunner.
                    filename_suffix=f".{self.first_round:09d}.{os.getpid()}.{self._files}",
                )
            except OSError as error:
                if error.filename is None and not os.access(_SHARED, os.W_OK):  # its queue's semaphores
                    raise OSError(error.errno, error.strerror, _SHARED) from error
                raise
        elif not self._writer.file_writer.event_writer._worker.is_alive():
            raise OSError(errno.EIO, "the thread that writes events has died", str(self.folder))
        return self._writer


def step_of(record: dict[str, Any]) -> int:
    """The round after which a record was written. An epoch's own ``round`` counts the rounds done."""
    return record["round"] - (record["kind"] in ("epoch", "probe"))
