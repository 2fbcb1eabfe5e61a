"""Ways to spoil the files that a case of bad input speaks of; each is an edit of a folder."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file

Edit = Callable[[Path], object]
LEFT_OUT = object()
BEST = "run/checkpoints/best.safetensors"


def array(name: str, **arrays: Any) -> Edit:
    return lambda here: np.savez(here / name, **arrays)


def images(count: int = 8, **changes: Any) -> dict[str, Any]:
    """What a good npz holds, some of it changed."""
    x = np.arange(count * 64, dtype=np.int64).reshape(count, 8, 8).astype(np.uint8)
    y = np.arange(count) % 2
    good = {"image": x, "label": y, "test_image": x, "test_label": y}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def text(name: str, content: str | bytes) -> Edit:
    def edit(here: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return edit


def cut(name: str) -> Edit:
    return lambda here: (here / name).write_bytes((here / name).read_bytes()[:-100])


def flipped(name: str) -> Edit:
    def edit(here: Path) -> None:
        content = bytearray((here / name).read_bytes())
        content[-9] ^= 16
        (here / name).write_bytes(content)

    return edit


def gone(name: str) -> Edit:
    return lambda here: (here / name).unlink()


def setting(**changes: Any) -> Edit:
    """Fields of the run's config.json; LEFT_OUT takes one out."""

    def edit(here: Path) -> None:
        file = here / "run" / "config.json"
        config = {**json.loads(file.read_text()), **changes}
        kept = {name: value for name, value in config.items() if value is not LEFT_OUT}
        file.write_text(json.dumps(kept))

    return edit


def unfinished(*edits: Edit) -> Edit:
    """The run as it was before its summary was written, and further edits."""

    def edit(here: Path) -> None:
        (here / "run" / "summary.json").unlink()
        for each in edits:
            each(here)

    return edit


def png(side: int = 8, mode: str = "L") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (side, side)).save(out, "PNG")
    return out.getvalue()


def parquet(content: dict[str, Any], **splits: dict[str, Any]) -> Edit:
    """A folder ``pq``: the same columns in train and test unless ``test`` says other."""

    def edit(here: Path) -> None:
        (here / "pq").mkdir()
        for split, columns in {"train": content, "test": content, **splits}.items():
            pq.write_table(pa.table(columns), here / "pq" / f"{split}-0.parquet")

    return edit


def rows(count: int = 4, **changes: Any) -> dict[str, Any]:
    """Columns of a good parquet file, some changed; None leaves one out."""
    good = {"image": [png()] * count, "label": [n % 2 for n in range(count)]}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def tree(files: dict[str, bytes]) -> Edit:
    """A folder ``pics`` with these files."""

    def edit(here: Path) -> None:
        for name, content in files.items():
            text(f"pics/{name}", content)(here)

    return edit


def classes(**changes: bytes) -> dict[str, bytes]:
    """A good folder of images, some files changed (``__`` for /, ``_png`` ends the name)."""
    names = [f"{split}/{label}/0.png" for split in ("train", "test") for label in "ab"]
    more = {name.replace("__", "/").replace("_png", ".png"): content for name, content in changes.items()}
    return {**dict.fromkeys(names, png()), **more}


def other_weights(name: str) -> Edit:
    return lambda here: save_file({"w": torch.zeros(3)}, here / name)


def pickled(name: str) -> Edit:
    """torch.save of an object that is no tensor."""
    return lambda here: torch.save({"state_dict": Path("x")}, here / name)


def header_only(name: str) -> Edit:
    """A safetensors file without tensors and without our metadata."""
    return text(name, struct.pack("<Q", 2) + b"{}")
