"""Arrays of images saved by numpy: ``image`` uint8 [N,H,W,C] or [N,H,W] and ``label`` [N]."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from lasat_ray.config.files import check_regular
from lasat_ray.data.guard import check_bytes, check_expansion, check_labels, reading
from lasat_ray.data.images import ImageDataset, Images, Request, number_names
from lasat_ray.errors import UserError


def load(request: Request) -> ImageDataset:
    """``npz:PATH``: a folder with train.npz and test.npz, or one file that may add test_image, test_label.

    Classes are numbered up to the largest training label. UserError naming the file and array.
    """
    path = Path(request.place).expanduser()
    if path.is_dir():
        file, test, prefix = path / "train.npz", path / "test.npz", ""
        if not test.is_file():
            raise UserError(f"{test}: no such file; add the test images there")
    else:
        file, test, prefix = path, path, "test_"
    train, label_N = read(file, rows=request.train_rows)
    names = number_names(int(label_N.max()) + 1 if len(label_N) else 0)
    return ImageDataset(request.name, train, names, partial(_load_test, test, prefix, len(names), request))


def _load_test(file: Path, prefix: str, num_classes: int, request: Request) -> Images:
    return read(file, prefix=prefix, rows=request.test_rows, num_classes=num_classes)[0]


def read(
    file: Path, *, prefix: str = "", rows: Callable[[int], Tensor], num_classes: int | None = None
) -> tuple[Images, np.ndarray]:
    """The chosen images of one file, and the labels of all: int64 [N].

    ``rows(n)`` chooses among n, int64 [M]; ``prefix`` stands before ``image`` and ``label``. UserError
    naming the file and array that is missing, damaged or of another type or shape.
    """
    check_regular(file)
    label_N = _array(file, f"{prefix}label")
    if label_N.ndim != 1 or label_N.dtype.kind not in "iu":
        raise UserError(f"{file} {prefix}label: {label_N.dtype} of shape {label_N.shape}; want integers [N]")
    check_labels(label_N, num_classes, lambda row: f"{file} {prefix}label row {row}")
    image = _array(file, f"{prefix}image")
    if image.ndim == 3:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[3] not in (1, 3) or 0 in image.shape[1:]:
        raise UserError(
            f"{file} {prefix}image: {image.dtype} of shape {image.shape}; "
            "want uint8 [N,H,W], [N,H,W,1] or [N,H,W,3]"
        )
    if len(image) != len(label_N):
        raise UserError(
            f"{file}: {len(image)} {prefix}image rows but {len(label_N)} {prefix}label rows; "
            "make them equally many"
        )
    chosen = rows(len(label_N))
    x_NHWC = torch.from_numpy(image).index_select(0, chosen)
    label_N = label_N.astype(np.int64)
    return Images(x_NHWC.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(label_N)[chosen]), label_N


def _array(file: Path, name: str) -> np.ndarray:
    """One member, its declared size checked before a byte of data is read; never unpickles."""
    with reading(str(file)), zipfile.ZipFile(file) as members:
        if f"{name}.npy" not in members.namelist():
            found = ", ".join(member.removesuffix(".npy") for member in members.namelist())
            raise UserError(f"{file}: has no array '{name}' (found {found or 'none'}); add it")
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
            return np.ascontiguousarray(npy.read_array(stream, allow_pickle=False))


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = npy.read_magic(stream)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    return shape, dtype
