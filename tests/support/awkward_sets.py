"""Small image sets as users have them, each awkward in one way.

``python -m tests.support.awkward_sets FOLDER`` makes them all.
``SETS`` maps a name to what makes the set, and to what loading it has to give: ``Reads`` or ``Refused``.
All show two classes that differ in brightness, so that a net learns them at once.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("bright", "dark")
TRAIN, TEST = 12, 6  # images of each class


@dataclass(frozen=True)
class Reads:
    """Images to train on and to test on; ``told`` stands in the notes."""

    train: int = 2 * TRAIN
    test: int = 2 * TEST
    told: str = ""


@dataclass(frozen=True)
class Refused:
    """The one line holds this."""

    told: str


def pixels(label: int, n: int, shape: tuple[int, ...] = (8, 8)) -> np.ndarray:
    """uint8, bright for class 0 and dark for class 1."""
    rng = np.random.default_rng([label, n])
    return (rng.integers(0, 60, shape) + 190 * (label == 0)).astype(np.uint8)


def encode(array: np.ndarray, mode: str | None = None, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(out, kind, **options)
    return out.getvalue()


def folder(
    root: Path,
    blob: Callable[[int, int], bytes] = lambda label, n: encode(pixels(label, n)),
    name: Callable[[int], str] = lambda n: f"{n:02}.png",
    parts: tuple[str, str] = ("train", "test"),
) -> None:
    """PART/CLASS/NAME for both parts."""
    for part, first, count in ((parts[0], 0, TRAIN), (parts[1], TRAIN, TEST)):
        for label, known in enumerate(CLASSES):
            for n in range(first, first + count):
                file = root / part / known / name(n)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(blob(label, n))


def table(
    first: int, count: int, names: list[str] | None, label_of: Callable[[int], int] = int, **columns: str
) -> pa.Table:
    """Rows of both classes; ``names`` in the schema, labels as ``label_of`` numbers them."""
    rows = [(label, n) for n in range(first, first + count) for label in range(2)]
    images = [{"bytes": encode(pixels(label, n)), "path": None} for label, n in rows]
    image, label = columns.get("image", "image"), columns.get("label", "label")
    made = pa.table({image: pa.array(images), label: pa.array([label_of(y) for y, _ in rows], pa.int64())})
    if names is None:
        return made
    features = {label: {"names": names, "_type": "ClassLabel"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet(root: Path, **parts: pa.Table) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        pq.write_table(rows, root / f"{name}.parquet".replace("__", "-"))


def arrays(first: int, count: int, shape: tuple[int, ...] = (8, 8)) -> tuple[np.ndarray, np.ndarray]:
    rows = [(label, n) for n in range(first, first + count) for label in range(2)]
    return np.stack([pixels(*row, shape) for row in rows]), np.array([label for label, _ in rows])


def npz(file: Path, **changes: np.ndarray) -> None:
    image, label = arrays(0, TRAIN)
    test_image, test_label = arrays(TRAIN, TEST)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        **{"image": image, "label": label, "test_image": test_image, "test_label": test_label, **changes},
    )


def glyph(label: int, n: int) -> bytes:
    """What there is to see lies in the alpha channel."""
    layers = np.zeros((8, 8, 4), np.uint8)
    layers[..., 3] = 255 - pixels(label, n)
    return encode(layers)


def sideways(label: int, n: int) -> bytes:
    """6 x 8 pixels, to be turned by its EXIF tag into 8 x 6."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(pixels(label, n, (6, 8)), exif=exif)


def animated(label: int, n: int) -> bytes:
    out = io.BytesIO()
    frames = [Image.fromarray(pixels(y, n)) for y in (label, 1 - label)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


def sixteen_bits(label: int, n: int) -> bytes:
    return encode(pixels(label, n).astype(np.uint16) * 257)


def with_hidden_files(root: Path) -> None:
    folder(root)
    for part in ("train", "test"):
        (root / part / "bright" / "._00.png").write_bytes(b"\0\5\x16\7")
        (root / part / "dark" / "Thumbs.db").write_bytes(b"x")


def with_a_loop(root: Path) -> None:
    folder(root)
    os.symlink("..", root / "train" / "bright" / "again")


def lacking_a_test_class(root: Path) -> None:
    folder(root)
    for file in (root / "test" / "dark").iterdir():
        file.unlink()


def with_a_new_test_class(root: Path) -> None:
    folder(root)
    (root / "test" / "dark").rename(root / "test" / "dim")


def unlabelled_test_folder(root: Path) -> None:
    folder(root, parts=("train", "val"))
    (root / "test").mkdir()
    (root / "test" / "0.png").write_bytes(encode(pixels(0, 0)))


def of_two_sizes(root: Path) -> None:
    folder(root, lambda label, n: encode(pixels(label, n, (8, 8) if n < TRAIN else (9, 9))))


def coloured_test(root: Path) -> None:
    folder(root, lambda label, n: encode(pixels(label, n, (8, 8) if n < TRAIN else (8, 8, 3))))


NAMES = list(CLASSES)
SETS: dict[str, tuple[Callable[[Path], None], str, Reads | Refused]] = {
    "plain": (folder, "imagefolder:", Reads()),
    "transparent": (
        lambda p: folder(p, glyph),
        "imagefolder:",
        Reads(told="24 images with transparent pixels"),
    ),
    "turned": (lambda p: folder(p, sideways), "imagefolder:", Reads(told="turned upright")),
    "animated": (lambda p: folder(p, animated, lambda n: f"{n}.gif"), "imagefolder:", Reads(told="animated")),
    "deep": (lambda p: folder(p, sixteen_bits), "imagefolder:", Reads(told="of 16 bits")),
    "palette": (lambda p: folder(p, lambda y, n: encode(pixels(y, n), "P")), "imagefolder:", Reads()),
    "cmyk": (
        lambda p: folder(p, lambda y, n: encode(pixels(y, n), "CMYK", "JPEG"), lambda n: f"{n}.jpg"),
        "imagefolder:",
        Reads(),
    ),
    "portable": (
        lambda p: folder(p, lambda y, n: encode(pixels(y, n), kind="PPM"), lambda n: f"{n}.pgm"),
        "imagefolder:",
        Reads(),
    ),
    "tiff": (
        lambda p: folder(p, lambda y, n: encode(pixels(y, n), kind="TIFF"), lambda n: f"{n}.TIF"),
        "imagefolder:",
        Reads(),
    ),
    "nested": (lambda p: folder(p, name=lambda n: f"{n % 3}/{n}.png"), "imagefolder:", Reads()),
    "half nested": (
        lambda p: folder(p, name=lambda n: f"{n}.png" if n % 2 else f"a/b/{n}.png"),
        "imagefolder:",
        Reads(),
    ),
    "a loop of links": (with_a_loop, "imagefolder:", Reads()),
    "hidden files": (
        with_hidden_files,
        "imagefolder:",
        Reads(told="2 files left out: 1 hidden, 1 with no image's"),
    ),
    "validation": (lambda p: folder(p, parts=("train", "validation")), "imagefolder:", Reads()),
    "test without labels": (unlabelled_test_folder, "imagefolder:", Reads(told="has no labels")),
    "test lacks a class": (
        lacking_a_test_class,
        "imagefolder:",
        Reads(test=TEST, told="1 class has no image"),
    ),
    "test has a class": (with_a_new_test_class, "imagefolder:", Refused("class 1 is 'dim'")),
    "two sizes": (of_two_sizes, "imagefolder:", Refused("image is 9x9 but training images are 8x8")),
    "coloured test": (coloured_test, "imagefolder:", Refused("has colour but the training images are grey")),
    "named alike": (
        lambda p: parquet(p, train__0=table(0, TRAIN, NAMES), test__0=table(TRAIN, TEST, NAMES)),
        "parquet:",
        Reads(),
    ),
    "test named backwards": (
        lambda p: parquet(
            p, train__0=table(0, TRAIN, NAMES), test__0=table(TRAIN, TEST, NAMES[::-1], lambda y: 1 - y)
        ),
        "parquet:",
        Reads(),
    ),
    "a shard named backwards": (
        lambda p: parquet(
            p,
            train__0=table(0, 6, NAMES),
            train__1=table(6, 6, NAMES[::-1], lambda y: 1 - y),
            test__0=table(TRAIN, TEST, NAMES),
        ),
        "parquet:",
        Reads(),
    ),
    "a stream named backwards": (
        lambda p: parquet(
            p,
            train__0=table(0, 6, NAMES),
            train__1=table(6, 6, NAMES[::-1], lambda y: 1 - y),
            test__0=table(TRAIN, TEST, NAMES[::-1], lambda y: 1 - y),
        ),
        "stream:",
        Reads(),
    ),
    "other names": (
        lambda p: parquet(p, train__0=table(0, TRAIN, NAMES), test__0=table(TRAIN, TEST, ["bright", "dim"])),
        "parquet:",
        Refused("class 1 is 'dim'"),
    ),
    "labels of -1": (
        lambda p: parquet(
            p,
            train__0=table(0, TRAIN, NAMES),
            test__0=table(TRAIN, TEST, NAMES, lambda y: -1),
            validation__0=table(TRAIN, TEST, NAMES),
        ),
        "parquet:",
        Reads(told="has no labels"),
    ),
    "no labels at all": (
        lambda p: parquet(
            p, train__0=table(0, TRAIN, NAMES), test__0=table(TRAIN, TEST, NAMES, lambda y: -1)
        ),
        "parquet:",
        Refused("has no labels, and"),
    ),
    "other columns": (
        lambda p: parquet(
            p,
            train__0=table(0, TRAIN, NAMES, image="photo", label="kind"),
            test__0=table(TRAIN, TEST, NAMES, image="photo", label="kind"),
        ),
        "parquet:",
        Refused("has no column img or image (found photo, kind); name one with --data.image-column"),
    ),
    "arrays": (lambda p: npz(p / "set.npz"), "npz:/set.npz", Reads()),
    "arrays of another size": (
        lambda p: npz(p / "set.npz", test_image=np.zeros((12, 9, 9), np.uint8)),
        "npz:/set.npz",
        Refused("test images are (1, 9, 9) but training images are (1, 8, 8)"),
    ),
    "arrays without test images": (
        lambda p: npz(p / "set.npz", test_label=np.zeros(0, int), test_image=np.zeros((0, 8, 8), np.uint8)),
        "npz:/set.npz",
        Refused("holds no test images"),
    ),
    "test labels beyond": (
        lambda p: npz(p / "set.npz", test_label=np.full(12, 2)),
        "npz:/set.npz",
        Refused("label 2 is outside 0..1"),
    ),
}
"""Name -> (what makes it, source and what follows its path, what loading it gives)."""


def make(name: str, root: Path) -> str:
    """Make one of ``SETS`` below ``root``; returns its spelling for --dataset."""
    return make_of(SETS, name, root)


def make_of(sets: Mapping[str, tuple[Callable[[Path], object], str, Any]], name: str, root: Path) -> str:
    """Make one set of a table such as ``SETS`` below ``root``; returns its spelling for --dataset."""
    maker, source, _ = sets[name]
    kind, _, rest = source.partition(":")
    place = root / name.replace(" ", "_")
    maker(place)
    return f"{kind}:{place}{rest}"


if __name__ == "__main__":
    for known in SETS:
        print(make(known, Path(sys.argv[1])))
