"""Every data set by its spelling on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from lasat_ray.data import digits, image_folder, npz, parquet, stream, tiny_imagenet, torchvision_sets
from lasat_ray.data.guard import files_at
from lasat_ray.data.images import ImageDataset, Request, TrainingImages
from lasat_ray.data.stream import open_stream
from lasat_ray.errors import UsageError, UserError, unknown_name

SOURCES: dict[str, Callable[[Request], ImageDataset]] = {
    "digits": digits.load,
    "cifar10": torchvision_sets.load_cifar,
    "cifar100": torchvision_sets.load_cifar,
    "gtsrb": torchvision_sets.load_gtsrb,
    "tiny-imagenet": tiny_imagenet.load,
    "imagefolder": image_folder.load,
    "parquet": parquet.load,
    "npz": npz.load,
    "stream": stream.load,
}
"""Name -> loader. A new source is one file and one line here."""

_WITH_PATH = ("imagefolder", "parquet", "npz", "stream")


def load_dataset(
    spelling: str, *, root: str, max_train: int | None, max_test: int | None, seed: int
) -> ImageDataset:
    """The data set written as ``digits``, ``cifar10``, ``parquet:PATH``, ``stream:URL``, ...; see SOURCES.

    ``root``: folder of the sets that have no PATH. ``max_train`` images are chosen by ``seed``
    before anything is decoded; ``max_test`` means the first so many. UsageError for a spelling or
    number that cannot be; UserError for a file that is missing or damaged.
    """
    name, colon, place = spelling.partition(":")
    if name not in SOURCES:
        raise unknown_name("--dataset", name, SOURCES)
    if name in _WITH_PATH and not place:
        raise UsageError(f"--dataset: '{spelling}' lacks its path; write {name}:PATH")
    if name not in _WITH_PATH and colon:
        raise UsageError(f"--dataset: '{spelling}' takes no path; write {name}")
    for field, value in (("--data.max-train", max_train), ("--data.max-test", max_test)):
        if value is not None and value < 1:
            raise UsageError(f"{field}: {value} is not a number of images; give 1 or more, or leave it out")
    request = Request(
        name=spelling,
        place=place,
        root=Path(root).expanduser(),
        max_train=max_train,
        max_test=max_test,
        seed=seed,
    )
    with files_at(spelling):
        return SOURCES[name](request)


def load_extra(spelling: str, image_shape: tuple[int, int, int], num_classes: int) -> TrainingImages:
    """Extra training images, ``npz:PATH`` or ``stream:URL``; ``image_shape`` (C,H,W) of the main set.

    UsageError for another spelling, UserError where they do not fit the main set.
    """
    name, _, place = spelling.partition(":")
    if name not in ("npz", "stream") or not place:
        raise UsageError(
            f"--data.extra: '{spelling}' is not npz:PATH or stream:URL; write for example npz:extra.npz"
        )
    if name == "stream":
        with files_at(spelling):
            return open_stream(spelling, place, image_shape, num_classes)
    file = Path(place).expanduser()
    images, _ = npz.read(file, rows=torch.arange, num_classes=num_classes)
    if not len(images) or images.image_shape != image_shape:
        raise UserError(
            f"{file}: holds {len(images)} images of {images.image_shape} (C,H,W); "
            f"want at least one of {image_shape}, as in the main set"
        )
    return images
