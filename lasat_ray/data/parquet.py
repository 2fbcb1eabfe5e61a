"""Image parquet as Hugging Face writes it, decoded into memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lasat_ray.config.urls import is_url
from lasat_ray.data.classes import Classes
from lasat_ray.data.decode import Encoded, check_headers, decode_all
from lasat_ray.data.find_shards import find_folder, find_split, find_tests
from lasat_ray.data.images import ImageDataset, Images, ReadOptions, Request
from lasat_ray.data.part import Part, Shape, make_dataset, told_counts
from lasat_ray.data.shards import (
    Shards,
    file_identity,
    is_labelled,
    read_images,
    read_labels,
    read_shards,
)

REMEDY = "write all rows with one size, or give --data.image-size"


def load(request: Request) -> ImageDataset:
    """``parquet:PATH``; PATH, or one folder in it, holds train-*.parquet and test-*, valid-* or validation-*.

    Classes are named by the schema's ``huggingface`` entry, else numbered up to the largest
    training label. UserError naming the file, and where it applies the row.
    """
    options = request.options
    folder = find_folder(str(Path(request.place).expanduser()), "parquet")
    train = shards_of(find_split(folder, "train"), options)
    openers = test_openers(folder, options)
    label_N = read_labels(train, None if train.names is None else len(train.names))
    rows = request.train_rows(len(label_N))
    x, done = _decoded(train, rows, None, options)
    images = Images(x, torch.from_numpy(label_N[rows.numpy()]))
    notes = told_counts(f"{folder} train", done)
    classes = classes_of(train, label_N)
    return make_dataset(request, images, classes, openers, available=len(label_N), notes=notes)


def open_test(request: Request) -> tuple[partial[Part], ...]:
    """The test parts of a folder that may hold no training images."""
    place = request.place if is_url(request.place) else str(Path(request.place).expanduser())
    folder = find_folder(place, request.name.partition(":")[0], "test", "val", "valid", "validation")
    return test_openers(folder, request.options)


def test_openers(folder: str, options: ReadOptions) -> tuple[partial[Part], ...]:
    """What opens the parts that may hold the test images, best first."""
    return tuple(partial(open_part, files, options) for files in find_tests(folder))


def shards_of(files: tuple[str, ...], options: ReadOptions) -> Shards:
    """The files by the columns that the options name."""
    return read_shards(files, image=options.image_column, label=options.label_column)


def classes_of(shards: Shards, label_N: np.ndarray) -> Classes:
    """The schema's names, else numbers up to the largest label."""
    if shards.names:
        return Classes(shards.names)
    return Classes.numbered(int(label_N.max()) + 1 if len(label_N) else 0)


def open_part(files: tuple[str, ...], options: ReadOptions) -> Part:
    """The labels of some files; their images are read when they are asked for."""
    shards = shards_of(files, options)
    where = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    if is_labelled(shards):
        label_N = read_labels(shards, None if shards.names is None else len(shards.names))
    else:
        label_N = np.full(shards.count, -1, dtype=np.int64)

    def read(rows: Tensor, channels: int | None) -> tuple[Tensor, Counter[str]]:
        return _decoded(shards, rows, channels, options)

    def look(rows: Tensor, shape: Shape) -> None:
        blobs, names = read_images(shards, rows.sort().values.numpy())
        encoded = Encoded(len(blobs), blobs.__getitem__, names.__getitem__)
        check_headers(encoded, shape, sized=options.image_size is None, remedy=REMEDY)

    identity = hashlib.sha256("".join(file_identity(file) for file in files).encode()).hexdigest()
    return Part(where, label_N, classes_of(shards, label_N), read, look, identity)


def _decoded(
    shards: Shards, rows: Tensor, channels: int | None, options: ReadOptions
) -> tuple[Tensor, Counter[str]]:
    """Rows in any order, none twice: uint8 [M,C,H,W]; no other row is decoded."""
    ordered = rows.sort()
    blobs, names = read_images(shards, ordered.values.numpy())
    notes: Counter[str] = Counter()
    encoded = Encoded(len(blobs), blobs.__getitem__, names.__getitem__)
    x = decode_all(
        encoded,
        side=options.image_size,
        fit=options.fit,
        channels=channels,
        remedy=REMEDY,
        background=options.background,
        notes=notes,
    )
    in_order = torch.equal(ordered.values, rows)
    return x if in_order else x[ordered.indices.argsort()], notes
