"""Arrays of images saved by numpy: ``image`` uint8 [N,H,W,C] or [N,H,W] and ``label`` [N].

A file may name its classes in an array ``class_names``. For the .npy files of CIFAR-10-C see ``npy``.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format
from torch import Tensor

from lasat_ray.config.files import check_regular
from lasat_ray.data import npy
from lasat_ray.data.classes import Classes
from lasat_ray.data.guard import MAX_CLASSES, check_bytes, check_expansion, check_labels, reading
from lasat_ray.data.images import ImageDataset, Images, ReadOptions, Request
from lasat_ray.data.part import Part, Shape, make_dataset
from lasat_ray.errors import UserError

NAMES = "class_names"
PLAIN = ReadOptions()
TESTS = ("test", "val", "valid", "validation")


def load(request: Request) -> ImageDataset:
    """``npz:PATH``: a folder with train.npz and test.npz, or one file that may add test_image, test_label.

    Classes are named by an array class_names, else numbered up to the largest training label. UserError
    naming the file and array.
    """
    path, options = Path(request.place).expanduser(), request.options
    file = path / "train.npz" if path.is_dir() else path
    openers = test_openers(path, options)
    images, label_N = read(file, rows=request.train_rows, options=options)
    classes = _classes(file, (label_N,))
    return make_dataset(request, images, classes, openers, available=len(label_N))


def open_test(request: Request) -> tuple[partial[Part], ...]:
    """The test parts of a file or folder that may lack training images; a file of one part is that part."""
    path, options = Path(request.place).expanduser(), request.options
    if npy.is_published(path):
        return npy.open_test(path)
    if not path.is_dir() and not _test_parts(path, options):
        return (partial(open_part, path, "", options, (path,)),)
    return test_openers(path, options)


def test_openers(path: Path, options: ReadOptions) -> tuple[partial[Part], ...]:
    """What opens the parts that may hold the test images, best first; UserError where there is none."""
    if not path.is_dir():
        parts = _test_parts(path, options) if path.is_file() else ()
        return tuple(partial(open_part, path, f"{part}_", options, (path,)) for part in parts or ("test",))
    files = [path / f"{part}.npz" for part in TESTS if (path / f"{part}.npz").is_file()]
    if not files:
        raise UserError(f"{path / 'test.npz'}: no such file; add the test images there")
    train = (path / "train.npz",) if (path / "train.npz").is_file() else ()
    return tuple(partial(open_part, file, "", options, (*train, file)) for file in files)


def open_part(file: Path, prefix: str, options: ReadOptions, known: tuple[Path, ...]) -> Part:
    """The labels of one part of a file; its images are read when they are asked for.

    ``known``: the files whose labels tell how many classes there are."""
    image, label = _names(prefix, options)
    label_N = _labels(file, label)
    told = [
        _labels(other, _names("", options)[1]) for other in known if _names("", options)[1] in held(other)
    ]

    def read_rows(rows: Tensor, channels: int | None) -> tuple[Tensor, Counter[str]]:
        return read(file, prefix=prefix, rows=lambda n: rows, checked=False, options=options)[0].x, Counter()

    return Part(
        where=f"{file} {label}",
        labels=label_N.astype(np.int64),
        classes=_classes(known[0], (label_N, *told)),
        read=read_rows,
        look=partial(_look, file, image),
        identity=" ".join(f"{name} {held(file).get(name)}" for name in (image, label)),
    )


def read(
    file: Path,
    *,
    prefix: str = "",
    rows: Callable[[int], Tensor],
    num_classes: int | None = None,
    checked: bool = True,
    options: ReadOptions = PLAIN,
) -> tuple[Images, np.ndarray]:
    """The chosen images of one file, and the labels of all: int64 [N].

    ``rows(n)`` chooses among n, int64 [M]; ``prefix`` stands before the arrays' names; ``checked`` refuses
    labels that are no class. UserError naming the file and array that is missing, damaged or of another
    type or shape.
    """
    image_name, label_name = _names(prefix, options)
    label_N = _labels(file, label_name)
    if checked:
        check_labels(label_N, num_classes, lambda row: f"{file} {label_name} row {row}")
    image = _array(file, image_name)
    if image.ndim == 3:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[3] not in (1, 3) or 0 in image.shape[1:]:
        raise UserError(
            f"{file} {image_name}: {image.dtype} of shape {image.shape}; "
            "want uint8 [N,H,W], [N,H,W,1] or [N,H,W,3]"
        )
    if len(image) != len(label_N):
        raise UserError(
            f"{file}: {len(image)} {image_name} rows but {len(label_N)} {label_name} rows; "
            "make them equally many"
        )
    chosen = rows(len(label_N))
    x_NHWC = torch.from_numpy(image).index_select(0, chosen)
    label_N = label_N.astype(np.int64)
    y = torch.from_numpy(label_N)[chosen].clamp_min(0) if not checked else torch.from_numpy(label_N)[chosen]
    return Images(x_NHWC.permute(0, 3, 1, 2).contiguous(), y), label_N


def class_names(file: Path) -> Classes | None:
    """The classes that a file names in its array ``class_names``; None where it has none. UserError
    for an array that holds no strings."""
    if NAMES not in held(file):
        return None
    names = _array(file, NAMES)
    if names.ndim != 1 or names.dtype.kind != "U" or not 1 <= len(names) <= MAX_CLASSES:
        raise UserError(f"{file} {NAMES}: {names.dtype} of shape {names.shape}; want strings, one per class")
    return Classes(tuple(map(str, names)))


def _classes(file: Path, labels: tuple[np.ndarray, ...]) -> Classes:
    """Those that a file names, else numbers up to the largest of some labels."""
    largest = max((int(label_N.max()) for label_N in labels if len(label_N)), default=-1)
    return class_names(file) or Classes.numbered(min(largest, MAX_CLASSES) + 1)


def _names(prefix: str, options: ReadOptions) -> tuple[str, str]:
    """The arrays of images and of labels."""
    return prefix + (options.image_column or "image"), prefix + (options.label_column or "label")


def _test_parts(file: Path, options: ReadOptions) -> tuple[str, ...]:
    found = held(file)
    return tuple(part for part in TESTS if _names(f"{part}_", options)[1] in found)


def _labels(file: Path, name: str) -> np.ndarray:
    label_N = _array(file, name)
    if label_N.ndim != 1 or label_N.dtype.kind not in "iu":
        raise UserError(f"{file} {name}: {label_N.dtype} of shape {label_N.shape}; want integers [N]")
    return label_N


def _look(file: Path, name: str, rows: Tensor, shape: Shape) -> None:
    """By the array's header alone."""
    with _archive(file) as archive:
        if f"{name}.npy" not in archive.namelist():
            return  # told by name when it is read
        with archive.open(f"{name}.npy") as stream:
            found, _ = _header(stream)
    if len(found) not in (3, 4):
        return  # likewise
    height, width, channels = (*found[1:], 1) if len(found) == 3 else found[1:4]
    if (channels, height, width) != tuple(shape):
        raise UserError(
            f"{file} {name}: test images are {(channels, height, width)} but training images are "
            f"{tuple(shape)} (C,H,W); bring both to one shape"
        )


def held(file: Path) -> dict[str, int]:
    """The arrays of a file and their checksums."""
    with _archive(file) as archive:
        return {member.filename.removesuffix(".npy"): member.CRC for member in archive.infolist()}


def _array(file: Path, name: str) -> np.ndarray:
    """One member, its declared size checked before a byte of data is read; never unpickles."""
    with _archive(file) as members:
        if f"{name}.npy" not in members.namelist():
            found = ", ".join(member.removesuffix(".npy") for member in members.namelist())
            kind = "label" if name.endswith("label") else "image"
            remedy = f"add it, or name it with --data.{kind}-column"
            raise UserError(f"{file}: has no array '{name}' (found {found or 'none'}); {remedy}")
        with members.open(f"{name}.npy") as stream:
            shape, dtype = _header(stream)
        if dtype.hasobject:
            raise UserError(f"{file} {name}: holds Python objects; save it as plain numbers")
        # the product in Python integers: a forged shape must not wrap around
        count = int(np.prod([int(side) for side in shape], dtype=object)) * dtype.itemsize
        check_bytes(count, f"{file} {name}")
        # the archive's own word for the packed size may be forged too
        packed = min(members.getinfo(f"{name}.npy").compress_size, file.stat().st_size)
        check_expansion(count, packed, f"{file} {name}")
        with members.open(f"{name}.npy") as stream:
            return np.ascontiguousarray(format.read_array(stream, allow_pickle=False))


@contextmanager
def _archive(file: Path) -> Iterator[zipfile.ZipFile]:
    """An ordinary file opened as a zip archive; UserError for whatever is wrong with it inside the block."""
    with reading(str(file)):
        check_regular(file)
        with zipfile.ZipFile(file) as members:
            yield members


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = format.read_magic(stream)
    read_header = format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    return shape, dtype
