"""Image parquet as Hugging Face writes it, decoded into memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lasat_ray.data.decode import Encoded, decode_all
from lasat_ray.data.images import ImageDataset, Images, Request, number_names
from lasat_ray.data.shards import Shards, find_folder, find_split, read_images, read_labels, read_shards

REMEDY = "write all rows with one size"


def load(request: Request) -> ImageDataset:
    """``parquet:PATH``; PATH, or one folder in it, holds train-*.parquet and test-*, valid-* or validation-*.

    Classes are named by the schema's ``huggingface`` entry, else numbered up to the largest
    training label. UserError naming the file, and where it applies the row.
    """
    folder = find_folder(str(Path(request.place).expanduser()), "parquet")
    train, test = read_shards(find_split(folder, "train")), find_test(folder)
    label_N = read_labels(train, None if train.names is None else len(train.names))
    names = train.names or number_names(int(label_N.max()) + 1 if len(label_N) else 0)
    images = _images(train, label_N, request.train_rows(len(label_N)), channels=None)
    return ImageDataset(
        name=request.name,
        train=images,
        class_names=names,
        load_test=partial(load_test, test, len(names), images.x.shape[1], request.test_rows),
    )


def find_test(folder: str) -> tuple[str, ...]:
    """The files of the test images: test-*, valid-* or validation-*.parquet."""
    return find_split(folder, "test", "valid", "validation")


def load_test(
    files: tuple[str, ...], num_classes: int, channels: int, rows: Callable[[int], Tensor]
) -> Images:
    """The chosen rows of all test images, ``rows(n)`` int64 [M] among n, with 1 or 3 ``channels``."""
    shards = read_shards(files)
    label_N = read_labels(shards, num_classes)
    return _images(shards, label_N, rows(len(label_N)), channels=channels)


def _images(shards: Shards, label_N: np.ndarray, rows: Tensor, *, channels: int | None) -> Images:
    """The chosen rows (ascending), decoded; no other row is."""
    blobs, names = read_images(shards, rows.numpy())
    encoded = Encoded(len(blobs), blobs.__getitem__, names.__getitem__)
    x = decode_all(encoded, channels=channels, remedy=REMEDY)
    return Images(x, torch.from_numpy(label_N[rows.numpy()]))
