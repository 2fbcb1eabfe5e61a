"""More of users' image sets: damaged files, odd names, odd sizes, odd arrays. See ``awkward_sets``.

``python -m tests.support.awkward_more FOLDER`` makes them all, those of ``awkward_sets`` too.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.support.awkward_sets import (
    CLASSES,
    NAMES,
    SETS,
    TEST,
    TRAIN,
    Reads,
    Refused,
    arrays,
    encode,
    folder,
    make_of,
    npz,
    parquet,
    pixels,
    table,
)

Maker = Callable[[Path], None]


def then(change: Callable[[Path], object], make: Maker = folder) -> Maker:
    """The plain folder, and one change to it."""

    def made(root: Path) -> None:
        make(root)
        change(root)

    return made


def renamed(bright: str, dark: str, file: str = "{:02}.png") -> Maker:
    """Other names of classes and files; bright comes first by name."""

    def made(root: Path) -> None:
        folder(root, name=lambda n: file.format(n))
        for part in ("train", "test"):
            for old, new in zip(CLASSES, (bright, dark), strict=True):
                (root / part / old).rename(root / part / new)

    return made


def few(train: int, test: int) -> Maker:
    """So many images a class."""

    def made(root: Path) -> None:
        folder(root)
        for part, kept in (("train", train), ("test", test)):
            for known in CLASSES:
                for file in sorted((root / part / known).iterdir())[kept:]:
                    file.unlink()

    return made


def sized(shape: tuple[int, int]) -> Maker:
    return lambda root: folder(root, lambda label, n: encode(pixels(label, n, shape)))


def one_large(root: Path) -> None:
    """2,000 pixels a side among 8."""
    folder(root, lambda label, n: encode(pixels(label, n, (2000, 2000) if n == 3 and label else (8, 8))))


def all_modes(label: int, n: int) -> bytes:
    """Grey, palette, colour, opaque alpha, 16 bits, one bit: in turn."""
    flat = pixels(label, n)
    kinds = (
        lambda: encode(flat),
        lambda: encode(flat, "P"),
        lambda: encode(np.stack([flat] * 3, -1)),
        lambda: encode(np.dstack([flat, flat, flat, np.full_like(flat, 255)])),
        lambda: encode(flat.astype(np.uint16) * 257),
        lambda: encode(flat, "1"),
    )
    return kinds[n % len(kinds)]()


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def sorted_by_class(root: Path) -> None:
    """One table, all of the first class before all of the second, in one row group."""
    both = [table(0, TRAIN, NAMES), table(TRAIN, TEST, NAMES)]
    parquet(root, **{name: t.sort_by("label") for name, t in zip(("train__0", "test__0"), both, strict=True)})


def with_rows(change: Callable[[pa.Table], pa.Table]) -> Maker:
    """The training rows changed."""
    return lambda root: parquet(
        root, train__0=change(table(0, TRAIN, NAMES)), test__0=table(TRAIN, TEST, NAMES)
    )


def column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    made = rows.set_column(rows.schema.get_field_index(name), name, values)
    return made.replace_schema_metadata(rows.schema.metadata)


def nulled(rows: pa.Table) -> pa.Table:
    images = rows["image"].to_pylist()
    return column(rows, "image", pa.array([None, *images[1:]]))


def bare(root: Path) -> None:
    """Images as bytes without the usual struct, in both parts."""

    def flat(rows: pa.Table) -> pa.Table:
        return column(rows, "image", pa.array([row["bytes"] for row in rows["image"].to_pylist()]))

    parquet(root, train__0=flat(table(0, TRAIN, NAMES)), test__0=flat(table(TRAIN, TEST, NAMES)))


def array_set(**changes: object) -> Maker:
    return lambda root: npz(root / "set.npz", **changes)  # type: ignore[arg-type]


def labels() -> np.ndarray:
    return arrays(0, TRAIN)[1]


FILE = "train/bright/00.png"
HALF = encode(pixels(0, 0, (64, 64)))
MORE: dict[str, tuple[Maker, str, Reads | Refused]] = {
    "an empty file": (
        then(lambda p: (p / FILE).write_bytes(b"")),
        "imagefolder:",
        Refused("00.png: is empty; replace it"),
    ),
    "a broken image": (
        then(lambda p: (p / FILE).write_bytes((p / FILE).read_bytes()[:50])),
        "imagefolder:",
        Refused("bright/00.png"),
    ),
    "an empty test file": (
        then(lambda p: (p / "test/dark/13.png").write_bytes(b"")),
        "imagefolder:",
        Refused("13.png: is empty"),
    ),
    "words in an image": (
        then(lambda p: (p / FILE).write_bytes(b"<html>not found</html>")),
        "imagefolder:",
        Refused("00.png: is no image that can be read"),
    ),
    "a bomb": (then(lambda p: (p / FILE).write_bytes(bomb())), "imagefolder:", Refused("bright/00.png")),
    "a pipe": (
        then(lambda p: os.mkfifo(p / "train" / "bright" / "99.png")),
        "imagefolder:",
        Refused("99.png"),
    ),
    "a dangling link": (
        then(lambda p: os.symlink("nowhere.png", p / "train" / "bright" / "99.png")),
        "imagefolder:",
        Refused("99.png"),
    ),
    "no images of a class": (
        then(lambda p: [file.unlink() for file in (p / "train" / "dark").iterdir()]),
        "imagefolder:",
        Refused("dark: holds no image"),
    ),
    "no test folder": (
        lambda p: folder(p, parts=("train", "other")),
        "imagefolder:",
        Refused("holds no folder test"),
    ),
    "capital parts": (
        lambda p: folder(p, parts=("Train", "Test")),
        "imagefolder:",
        Refused("no such folder"),
    ),
    "unicode names": (renamed("a grün ☃ 雪", "b école, noël", "im age {:02} ✓.png"), "imagefolder:", Reads()),
    "markup names": (renamed("[red]a <b>", "b & [i] 'q'", "[bold]{:02}.png"), "imagefolder:", Reads()),
    "names like formulas": (renamed("+1", "=cmd()"), "imagefolder:", Reads()),
    "names like numbers": (renamed("1e3", "nan"), "imagefolder:", Reads()),
    "tiny": (few(4, 1), "imagefolder:", Reads(train=8, test=2)),
    "wide": (sized((6, 20)), "imagefolder:", Reads()),
    "one pixel": (sized((1, 1)), "imagefolder:", Reads()),
    "one large image": (one_large, "imagefolder:", Refused("is 2000x2000 but the first is 8x8")),
    "one large image, resized": (one_large, "imagefolder:@8", Reads()),
    "test images trained on": (
        then(lambda p: shutil.copy(p / FILE, p / "test" / "bright" / "99.png")),
        "imagefolder:",
        Reads(test=2 * TEST + 1),
    ),
    "all modes": (lambda p: folder(p, all_modes), "imagefolder:", Reads(told="of 16 bits")),
    "a hidden folder": (
        then(lambda p: (p / "train" / ".ipynb_checkpoints").mkdir()),
        "imagefolder:",
        Reads(),
    ),
    "sorted by class": (sorted_by_class, "parquet:", Reads()),
    "sorted by class, streamed": (sorted_by_class, "stream:", Reads()),
    "bare bytes": (bare, "parquet:", Reads()),
    "a missing image": (with_rows(nulled), "parquet:", Refused("row 0")),
    "a label beyond": (
        with_rows(lambda t: column(t, "label", pa.array([7, *t["label"].to_pylist()[1:]]))),
        "parquet:",
        Refused("label 7"),
    ),
    "labels in words": (
        with_rows(lambda t: column(t, "label", pa.array(["x"] * len(t)))),
        "parquet:",
        Refused("label"),
    ),
    "floats": (array_set(image=arrays(0, TRAIN)[0] / 255), "npz:/set.npz", Refused("float64 of shape")),
    "one-hot labels": (
        array_set(label=np.eye(2, dtype=int)[labels()]),
        "npz:/set.npz",
        Refused("want integers [N]"),
    ),
    "named labels": (
        array_set(label=np.array(NAMES)[labels()]),
        "npz:/set.npz",
        Refused("want integers [N]"),
    ),
    "objects": (array_set(label=np.array([None] * 24)), "npz:/set.npz", Refused("holds Python objects")),
    "a label too few": (
        array_set(label=labels()[1:]),
        "npz:/set.npz",
        Refused("24 image rows but 23 label rows"),
    ),
    "a single class": (
        then(lambda p: [shutil.rmtree(p / part / "dark") for part in ("train", "test")]),
        "imagefolder:",
        Refused("class"),
    ),
    "a file in place of a folder": (
        then(lambda p: (p / "set").write_bytes(b"x")),
        "imagefolder:/set",
        Refused("no such folder"),
    ),
    "a negative label": (array_set(label=labels() - 1), "npz:/set.npz", Refused("label -1")),
}
"""Name -> (what makes it, source and what follows its path, what loading it gives), as SETS."""
ALL = {**SETS, **MORE}


def make(name: str, root: Path) -> str:
    """Make one of ``ALL`` below ``root``; returns its spelling for --dataset."""
    return make_of(ALL, name, root)


if __name__ == "__main__":
    for known in ALL:
        print(make(known, Path(sys.argv[1])))
