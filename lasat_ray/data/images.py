"""Labelled images in memory, and a data set whose test half stays closed until it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from lasat_ray.data.classes import Classes, number_names
from lasat_ray.data.guard import files_at
from lasat_ray.errors import UsageError, UserError
from lasat_ray.rng import RandomKey

__all__ = [
    "ImageDataset",
    "Images",
    "ReadOptions",
    "Request",
    "TestFacts",
    "TrainingImages",
    "number_names",
    "split_validation",
]


class TrainingImages(Protocol):
    """What training needs of its images, wherever they lie: in memory (``Images``) or in files
    (``stream.ImageStream``)."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of all of them."""
        ...

    def take(self, rows: Tensor) -> Images:
        """The images of some rows in memory, in the order of ``rows`` (int64 [M])."""
        ...

    def hold_out(self, count: int, seed: int, role: str = "validation") -> tuple[TrainingImages, Images]:
        """(the others, at most ``count`` images chosen by the seed)."""
        ...

    def sample(self, count: int, seed: int) -> tuple[Tensor, Images]:
        """Rows int64 [M] and images to look at, at least ``count`` where there are so many."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """``x`` [N,C,H,W] uint8 and ``y`` [N] int64, both on the CPU; N may be 0.

    UserError where shapes, types or places disagree, or a label is negative.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if self.x.dtype != torch.uint8 or self.x.ndim != 4 or self.x.device.type != "cpu":
            raise UserError(f"images.x: {_told(self.x)}; want uint8 [N,C,H,W] on the cpu")
        if self.y.dtype != torch.int64 or self.y.shape != self.x.shape[:1] or self.y.device.type != "cpu":
            raise UserError(f"images.y: {_told(self.y)}; want int64 [{len(self.x)}] on the cpu")
        if len(self.y) and int(self.y.min()) < 0:
            raise UserError(f"images.y: label {int(self.y.min())} is negative; labels start at 0")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C,H,W) that all images share."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    def take(self, rows: Tensor) -> Images:
        """The images of some rows, in the order of ``rows`` (int64 [M])."""
        return Images(self.x.index_select(0, rows), self.y.index_select(0, rows))

    def hold_out(self, count: int, seed: int, role: str = "validation") -> tuple[Images, Images]:
        """(the others, ``count`` images chosen by the seed), both in the order of these."""
        order = RandomKey.of(seed, role).permutation(len(self))
        return self.take(order[count:].sort().values), self.take(order[:count].sort().values)

    def sample(self, count: int, seed: int) -> tuple[Tensor, Images]:
        """Images to look at, and which they are: all of these, for they are at hand."""
        return torch.arange(len(self)), self


@dataclass(frozen=True, slots=True)
class TestFacts:
    """What is known of a test part without its pixels: a record of which images are used, what differs
    with its content, and what has to be told."""

    __test__ = False  # not a case of pytest's

    coverage: dict[str, Any]
    identity: str
    notes: tuple[str, ...]


@dataclass
class ImageDataset:
    """A named data set; ``load_test()`` opens the test images, and nothing before it reads a pixel of them.

    ``named``: the class names are the source's own, not the digits of label numbers. ``available``: how many
    training images the source has, of which ``train`` may be a part; ``notes``: what to tell about them.
    ``inspect_test()``: what is known of the test part by its labels and headers; None where a set was
    made by hand. UserError where a label has no class name, or the test images differ in shape from these.
    """

    name: str
    train: TrainingImages
    class_names: tuple[str, ...]
    load_test: Callable[[], Images]
    named: bool = True
    available: int | None = None
    notes: tuple[str, ...] = ()
    inspect_test: Callable[[], TestFacts] | None = None

    def __post_init__(self) -> None:
        if not len(self.train):
            raise UserError(f"{self.name}: holds no training images; check the path")
        if isinstance(self.train, Images):
            _check_range(self.train, self.num_classes, f"{self.name} train")
        # a partial of module functions, so that a data set can be sent to another process
        self.load_test = partial(_checked_test, self.load_test, self.name, self.image_shape, self.num_classes)

    @property
    def num_classes(self) -> int:
        """As many as there are class names."""
        return len(self.class_names)

    @property
    def classes(self) -> Classes:
        """The names, and whether they are names."""
        return Classes(self.class_names, self.named)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C,H,W) that all images share."""
        return self.train.image_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How files are read: the columns of parquet or arrays of npz that hold images and labels (None: the
    usual names), what shows through transparent pixels, and the side that images are brought to (None: they
    have one size) by stretching or cutting."""

    image_column: str | None = None
    label_column: str | None = None
    background: Literal["white", "black"] = "white"
    image_size: int | None = None
    fit: Literal["stretch", "crop"] = "stretch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a source is asked for: ``place`` is the spelling after the colon, "" where there is none."""

    name: str
    place: str
    root: Path
    max_train: int | None
    max_test: int | None
    seed: int
    options: ReadOptions = ReadOptions()

    def train_rows(self, n: int) -> Tensor:
        """Training rows to decode, int64 [M] ascending: all of ``n``, or ``max_train`` chosen by the seed."""
        if self.max_train is None or self.max_train >= n:
            return torch.arange(n)
        return RandomKey.of(self.seed, "subset").permutation(n)[: self.max_train].sort().values


def split_validation(images: TrainingImages, fraction: float, seed: int) -> tuple[TrainingImages, Images]:
    """(train, validation): ``fraction`` of the images, chosen by the seed, become the second.

    Both keep the order of ``images``; any fraction above 0 yields at least one validation image. A
    stream gives up at most ``stream.MAX_HELD_OUT``. UsageError where nothing would be left to train on.
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"--data.val-fraction: {fraction} is not a share; choose 0 <= fraction < 1")
    n = len(images)
    n_val = max(1, round(n * fraction)) if fraction else 0
    if n_val >= n:
        raise UsageError(
            f"--data.val-fraction: {fraction} of {n} images leaves none to train on; lower it or add images"
        )
    return images.hold_out(n_val, seed)


def _checked_test(
    load: Callable[[], Images], name: str, image_shape: tuple[int, int, int], num_classes: int
) -> Images:
    with files_at(name):
        test = load()
    if not len(test):
        raise UserError(f"{name}: holds no test images; check the path")
    if tuple(test.x.shape[1:]) != image_shape:
        raise UserError(
            f"{name}: test images are {tuple(test.x.shape[1:])} but training images are {image_shape} "
            "(C,H,W); bring both to one shape"
        )
    _check_range(test, num_classes, f"{name} test")
    return test


def _check_range(images: Images, num_classes: int, where: str) -> None:
    row = int(images.y.argmax())
    if int(images.y[row]) >= num_classes:
        raise UserError(
            f"{where} image {row}: label {int(images.y[row])} is outside 0..{num_classes - 1}; "
            "correct the label or the class names"
        )


def _told(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"
