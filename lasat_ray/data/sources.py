"""Every data set by its spelling on the command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from lasat_ray.config.data import TESTS_ALONE, check_trained_on
from lasat_ray.data import digits, image_folder, npy, npz, parquet, stream, tiny_imagenet, torchvision_sets
from lasat_ray.data.classes import Classes, match, relabelled
from lasat_ray.data.guard import files_at
from lasat_ray.data.images import ImageDataset, Images, ReadOptions, Request, TestFacts, TrainingImages
from lasat_ray.data.part import Part, choose_part, inspect_part, part_of_images, read_part
from lasat_ray.data.stream import open_stream
from lasat_ray.errors import UsageError, UserError, unknown_name

SOURCES: dict[str, Callable[[Request], ImageDataset]] = {
    "digits": digits.load,
    "cifar10": torchvision_sets.load_cifar,
    "cifar100": torchvision_sets.load_cifar,
    "svhn": torchvision_sets.load_svhn,
    "gtsrb": torchvision_sets.load_gtsrb,
    "tiny-imagenet": tiny_imagenet.load,
    "imagefolder": image_folder.load,
    "parquet": parquet.load,
    "npz": npz.load,
    "stream": stream.load,
}
"""Name -> loader. A new source is one file and one line here."""

TEST_SOURCES: dict[str, Callable[[Request], tuple[partial[Part], ...]]] = {
    "imagefolder": image_folder.open_test,
    "parquet": parquet.open_test,
    "npz": npz.open_test,
    "stream": parquet.open_test,
    "cifar10.1": npy.open_cifar10_1,
}
"""The sources whose test part can do without training images: those with a path, and sets that have none."""

DEFAULT = ReadOptions()


def load_dataset(
    spelling: str,
    *,
    root: str,
    max_train: int | None,
    max_test: int | None,
    seed: int,
    options: ReadOptions = DEFAULT,
) -> ImageDataset:
    """The data set written as ``digits``, ``cifar10``, ``parquet:PATH``, ``stream:URL``, ...; see SOURCES.

    ``root``: folder of the sets that have no PATH. ``max_train`` images are chosen by ``seed``
    before anything is decoded; ``max_test`` are even over the classes, the same for every seed. UsageError
    for a spelling or number that cannot be; UserError for a file that is missing or damaged.
    """
    request = make_request(spelling, root, max_train, max_test, seed, options)
    check_trained_on(spelling)
    with files_at(spelling):
        return SOURCES[spelling.partition(":")[0]](request)


def make_request(
    spelling: str, root: str, max_train: int | None, max_test: int | None, seed: int, options: ReadOptions
) -> Request:
    """What a source is asked for; UsageError for a spelling or number that cannot be."""
    name, colon, place = spelling.partition(":")
    if name not in SOURCES and name not in TESTS_ALONE:
        raise unknown_name("--dataset", name, [*SOURCES, *TESTS_ALONE])
    has_path = name in TEST_SOURCES and name not in TESTS_ALONE
    if has_path and not place:
        raise UsageError(f"--dataset: '{spelling}' lacks its path; write {name}:PATH")
    if not has_path and colon:
        raise UsageError(f"--dataset: '{spelling}' takes no path; write {name}")
    for field, value in (("--data.max-train", max_train), ("--data.max-test", max_test)):
        if value is not None and value < 1:
            raise UsageError(f"{field}: {value} is not a number of images; give 1 or more, or leave it out")
    return Request(
        name=spelling,
        place=place,
        root=Path(root).expanduser(),
        max_train=max_train,
        max_test=max_test,
        seed=seed,
        options=options,
    )


def load_test_images(
    spelling: str,
    classes: Classes,
    image_shape: tuple[int, int, int],
    *,
    root: str,
    max_test: int | None,
    options: ReadOptions = DEFAULT,
) -> tuple[Images, TestFacts]:
    """The test images of a set for a net of these ``classes`` and ``image_shape`` (C,H,W), numbered as the
    net's, and what is known of them. Training images are not needed.

    UserError where the set has other classes. The caller compares the shapes.
    """
    request = make_request(spelling, root, 1, max_test, 0, options)
    name = spelling.partition(":")[0]
    with files_at(spelling):
        if name in TEST_SOURCES:
            part = choose_part(TEST_SOURCES[name](request), spelling)
        else:
            dataset = SOURCES[name](make_request(spelling, root, 1, None, 0, options))
            part = part_of_images(dataset.load_test(), dataset.classes, f"{spelling} test")
        facts = inspect_part(part, classes, None, max_test=max_test, alone=True)
        channels = 3 if image_shape[0] == 3 else None  # some grey images among coloured ones are repeated
        images, _ = read_part(part, classes, channels, max_test=max_test, alone=True)
    return images, facts


def load_test_alone(
    spelling: str, *, root: str, max_test: int | None, options: ReadOptions = DEFAULT
) -> tuple[Images, TestFacts, Classes]:
    """The test images, x uint8 [N,C,H,W] and y [N], of a set that has no training images, what is known of
    them, and their classes: those that the part names, else its labels' numbers.

    UserError where there is no labelled test part, UsageError for a spelling that cannot be.
    """
    request = make_request(spelling, root, 1, max_test, 0, options)
    name = spelling.partition(":")[0]
    if name not in TEST_SOURCES:
        raise unknown_name("--dataset", name, TEST_SOURCES)
    with files_at(spelling):
        part = choose_part(TEST_SOURCES[name](request), spelling)
        facts = inspect_part(part, part.classes, None, max_test=max_test, alone=True)
        images, _ = read_part(part, part.classes, None, max_test=max_test, alone=True)
    return images, facts, part.classes


def load_extra(
    spelling: str,
    image_shape: tuple[int, int, int],
    classes: Classes | int,
    options: ReadOptions = DEFAULT,
) -> TrainingImages:
    """Extra training images, ``npz:PATH`` or ``stream:URL``; ``image_shape`` (C,H,W) and ``classes`` (or how
    many) of the main set, whose numbering their labels get where both have names.

    UsageError for another spelling, UserError where they do not fit the main set.
    """
    ours = Classes.numbered(classes) if isinstance(classes, int) else classes
    name, _, place = spelling.partition(":")
    if name not in ("npz", "stream") or not place:
        raise UsageError(
            f"--data.extra: '{spelling}' is not npz:PATH or stream:URL; write for example npz:extra.npz"
        )
    if name == "stream":
        with files_at(spelling):
            return open_stream(spelling, place, image_shape, ours, options)
    file = Path(place).expanduser()
    theirs = npz.class_names(file) or ours
    images, _ = npz.read(file, rows=torch.arange, num_classes=len(theirs), options=options)
    if not len(images) or images.image_shape != image_shape:
        raise UserError(
            f"{file}: holds {len(images)} images of {images.image_shape} (C,H,W); "
            f"want at least one of {image_shape}, as in the main set"
        )
    mapping = match(theirs, ours, str(file), "the main set")
    return Images(images.x, torch.from_numpy(relabelled(images.y.numpy(), mapping)))
