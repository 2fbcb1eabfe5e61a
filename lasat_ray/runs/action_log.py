"""What a strategist did and earned, image by image, for off-policy evaluation: parquet files of a run.

A file ends where a checkpoint is taken, so that a resumed run, which plays the rounds after its checkpoint
again, removes whole files and writes them anew; every rewarded image stands once.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lasat_ray.config.units import Grid
from lasat_ray.errors import not_written
from lasat_ray.process_group import HostCopy
from lasat_ray.types import Batch, RewardReport, Rollout

FOLDER = "actions"
_FILE = re.compile(r"rounds-(\d+)-(\d+)-worker-\d+\.parquet")
Columns = dict[str, HostCopy]


class ActionLog:
    """Collects this worker's images of rewarded rounds and writes them at checkpoints.

    A row: ``round``, ``image`` (its place in the training set), ``label``, ``context`` (what the policy saw,
    C*H*W bytes of pixels 0 to 255), every field of the strategy by its value, ``propensity`` (the probability
    with which the policy took these values together), ``reward`` as paid and ``raw_reward`` before it was
    standardized over its batch.
    """

    def __init__(self, folder: Path, grid: Grid, rank: int) -> None:
        self.folder, self.grid, self.rank = folder / FOLDER, grid, rank
        self._rounds: list[int] = []
        self._parts: list[Columns] = []

    def add(self, round: int, batch: Batch, rollout: Rollout, rewarded: RewardReport) -> None:
        """A rewarded round: images ``batch`` and what became of them, ``rollout`` with x [B,C,H,W]."""
        seen = (rollout.x.detach().clamp(0, 1) * 255).round().to(torch.uint8)
        raw = rewarded.reward if rewarded.raw is None else rewarded.raw
        columns = {
            "image": batch.index,
            "label": batch.y,
            "context": seen.flatten(1),
            "action": rollout.action,
            "propensity": rollout.log_prob.double(),
            "reward": rollout.reward.double(),
            "raw_reward": raw.double(),
        }
        self._rounds.append(round)
        self._parts.append({name: HostCopy(value.detach()) for name, value in columns.items()})

    def save(self) -> None:
        """Write what was collected since the last file; UserError where it cannot be written."""
        if not self._parts:
            return
        table, context = self._table()
        size = context.shape[1]
        bytes_ = pa.Array.from_buffers(pa.binary(size), len(context), [None, pa.py_buffer(context.tobytes())])
        table = table.append_column("context", bytes_)
        first, last = min(self._rounds), max(self._rounds)
        path = self.folder / f"rounds-{first:08}-{last:08}-worker-{self.rank}.parquet"
        try:
            self.folder.mkdir(exist_ok=True)
            part = path.with_suffix(".part")
            pq.write_table(table, part)
            part.replace(path)
        except OSError as error:
            raise not_written(path, error, then=", then --resume the run") from error
        self._rounds, self._parts = [], []

    def _table(self) -> tuple[pa.Table, np.ndarray]:
        """All columns but the contexts, and these, uint8 [rows, pixels]."""
        joined = {
            name: np.concatenate([part[name].read().numpy() for part in self._parts])
            for name in self._parts[0]
        }
        context, action = joined.pop("context"), joined.pop("action")
        rows = [len(part["reward"].read()) for part in self._parts]
        chosen = {
            name: np.asarray(values)[action[:, n]] for n, (name, values) in enumerate(self.grid.items())
        }
        images = {name: joined.pop(name) for name in ("image", "label")}
        joined["propensity"] = np.exp(joined["propensity"])
        return pa.table({"round": np.repeat(self._rounds, rows), **images, **chosen, **joined}), context

    def forget(self) -> None:
        """Drop what is not written: its rounds will be played again."""
        self._rounds, self._parts = [], []

    def rewind(self, round: int) -> None:
        """Remove the files of ``round`` and later, of all workers; the first worker only."""
        for path in self.folder.glob("*.part"):
            path.unlink()
        for path in self.folder.glob("*.parquet"):
            found = _FILE.fullmatch(path.name)
            if found and int(found[2]) >= round:
                path.unlink()
