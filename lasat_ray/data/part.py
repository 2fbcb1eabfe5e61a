"""One part of a data set whose labels are known and whose pixels are not read yet.

What can go wrong with a test part is asked here before a net is trained, and the same part is read with the
same numbering afterwards, whether its set brought training images along or a net alone knows the classes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lasat_ray.data.classes import Classes, match, relabelled
from lasat_ray.data.guard import check_labels
from lasat_ray.data.images import ImageDataset, Images, Request, TestFacts, TrainingImages
from lasat_ray.data.subsets import coverage, missing_classes, subset
from lasat_ray.errors import UserError

_LOOK = 4096
"""Images at most whose headers are read before training; spread evenly over those that will be used."""

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """``labels`` [N] int64 in the numbering of ``classes``; ``where`` names the part in messages.

    ``read(rows, channels)``: the images of rows [M] int64 in that order, uint8 [M,C,H,W], and notes on
    what was done to them. ``look(rows, shape)``: UserError where these images cannot become (C,H,W); it
    decodes nothing.
    ``identity``: what tells the part's content from another's; ``notes``: what was left out, in words;
    ``row_name(row)``: an image's name in messages.
    """

    where: str
    labels: np.ndarray
    classes: Classes
    read: Callable[[Tensor, int | None], tuple[Tensor, Counter[str]]]
    look: Callable[[Tensor, Shape], None]
    identity: str = ""
    notes: tuple[str, ...] = ()
    row_name: Callable[[int], str] | None = None

    @property
    def labelled(self) -> bool:
        """Whether there are labels at all; ImageNet's test part has -1 throughout."""
        return bool((self.labels >= 0).any())


def choose_part(openers: Sequence[Callable[[], Part]], name: str) -> Part:
    """The first part that is labelled; UserError where none is, or it is empty."""
    unlabelled: list[str] = []
    for opener in openers:
        part = opener()
        if not len(part.labels):
            raise UserError(f"{name}: holds no test images; check the path")
        if part.labelled:
            if not unlabelled:
                return part
            told = f"{unlabelled[0]} has no labels; the test images are those of {part.where}"
            return replace(part, notes=(*part.notes, told))
        unlabelled.append(part.where)
    raise UserError(
        f"{unlabelled[0]}: has no labels, and {name} has no other test part; add labels (0, 1, ...)"
    )


def make_dataset(
    request: Request,
    train: TrainingImages,
    classes: Classes,
    openers: tuple[Callable[[], Part], ...],
    *,
    available: int,
    notes: Sequence[str] = (),
) -> ImageDataset:
    """A data set whose test part is the first labelled one of ``openers``; another process can have it."""
    opened = partial(choose_part, openers, request.name)
    shape, most = train.image_shape, request.max_test
    return ImageDataset(
        request.name,
        train,
        classes.names,
        partial(_load_test, opened, classes, shape[0], most),
        named=classes.named,
        available=available,
        notes=tuple(notes),
        inspect_test=partial(_inspect_test, opened, classes, shape, most),
    )


def _load_test(opened: Callable[[], Part], ours: Classes, channels: int, max_test: int | None) -> Images:
    return read_part(opened(), ours, channels, max_test=max_test)[0]


def _inspect_test(opened: Callable[[], Part], ours: Classes, shape: Shape, max_test: int | None) -> TestFacts:
    return inspect_part(opened(), ours, shape, max_test=max_test)


def part_of_images(images: Images, classes: Classes, where: str) -> Part:
    """A part whose images lie in memory already."""

    def read(rows: Tensor, channels: int | None) -> tuple[Tensor, Counter[str]]:
        return images.x.index_select(0, rows), Counter()

    return Part(where, images.y.numpy(), classes, read, lambda rows, shape: None)


def inspect_part(
    part: Part, ours: Classes, shape: Shape | None, *, max_test: int | None, alone: bool = False
) -> TestFacts:
    """The facts of a test part; UserError for what would fail after the training.

    ``ours``: the classes of the training images, or with ``alone`` of the net; ``shape`` (C,H,W) that
    the images have to have, None where that is seen when they are read.
    """
    y, rows = _chosen(part, ours, max_test, alone)
    some = rows if len(rows) <= _LOOK else rows[torch.linspace(0, len(rows) - 1, _LOOK).long()]
    if shape is not None:
        part.look(some, shape)
    found = coverage(y[rows], ours.names, len(y))
    lacking = missing_classes(found["absent"], "the test images")
    digest = hashlib.sha256(f"{part.identity} {part.classes.names}".encode())
    digest.update(np.ascontiguousarray(part.labels).data)
    return TestFacts(found, digest.hexdigest(), (*part.notes, *([lacking] if lacking else [])))


def read_part(
    part: Part, ours: Classes, channels: int | None, *, max_test: int | None, alone: bool = False
) -> tuple[Images, Counter[str]]:
    """The test images, numbered as ``ours``, and what was done to how many of them."""
    y, rows = _chosen(part, ours, max_test, alone)
    x, done = part.read(rows, channels)
    return Images(x, y[rows]), done


def told_counts(what: str, counts: Counter[str]) -> list[str]:
    """``train: 3 images with transparent pixels, laid on white``."""
    return [f"{what}: {count:,} images {done}" for done, count in counts.items()]


def _chosen(part: Part, ours: Classes, max_test: int | None, alone: bool) -> tuple[Tensor, Tensor]:
    """All labels [N] in our numbering, and the rows [M] to use."""
    theirs = part.classes
    if not alone and not theirs.named:  # numbers of the same set: any that the training images have
        theirs = ours
    us = "the net" if alone else "the training images"
    row_name = part.row_name or (lambda row: f"{part.where} row {row}")
    # numbers beyond the net's are a row's fault, not a question of names
    check_labels(part.labels, len(theirs) if theirs.named else min(len(theirs), len(ours)), row_name)
    mapping = match(theirs, ours, part.where, us)
    y = torch.from_numpy(relabelled(part.labels, mapping))
    return y, subset(y, max_test)
