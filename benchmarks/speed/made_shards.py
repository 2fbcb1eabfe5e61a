"""Parquet shards of generated images: as many as wanted, at the cost of writing them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

POOL = 2000  # different pictures; a shard repeats them in another order


def generate(folder: Path, count: int, *, side: int, per_file: int, per_group: int) -> None:
    """``count`` JPEG images of blurred noise in 10 classes, in shards; 100 of them as test images."""
    rng = np.random.default_rng(0)

    def blob() -> bytes:
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        out = io.BytesIO()
        small.resize((side, side)).save(out, "JPEG")
        return out.getvalue()

    pool = pa.array([{"bytes": blob(), "path": None} for _ in range(min(count, POOL))])

    def write(name: str, rows: int) -> None:
        column = pool.take(pa.array(rng.integers(0, len(pool), rows)))
        table = pa.table({"image": column, "label": rng.integers(0, 10, rows)})
        # A dictionary would store every picture once.
        plain: dict[str, Any] = {"compression": "none", "use_dictionary": False}
        pq.write_table(table, folder / name, row_group_size=per_group, **plain)

    for first in range(0, count, per_file):
        write(f"train-{first // per_file:05d}.parquet", min(per_file, count - first))
    write("test-0.parquet", 100)


def first_shard(folder: Path) -> Path:
    """A folder beside the shards whose training images are the first file's."""
    small = folder.parent / "first"
    small.mkdir(exist_ok=True)
    for name in ("train-00000.parquet", "test-0.parquet"):
        (small / name).symlink_to(folder / name)
    return small
