"""Training images that stay in their parquet files: only a window of them is decoded at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lasat_ray.config.urls import is_url
from lasat_ray.data.classes import Classes, match
from lasat_ray.data.decode import Encoded, decode_all
from lasat_ray.data.feed import Shard
from lasat_ray.data.find_shards import find_folder, find_split
from lasat_ray.data.guard import check_bytes
from lasat_ray.data.images import ImageDataset, Images, ReadOptions, Request
from lasat_ray.data.parquet import REMEDY, shards_of, test_openers
from lasat_ray.data.part import make_dataset
from lasat_ray.data.prefetch import Prefetcher, thread_prefetch
from lasat_ray.data.shards import Shards, largest_label, read_labelled
from lasat_ray.data.stream_order import StreamOrder
from lasat_ray.errors import UsageError, UserError
from lasat_ray.process_group import to_device
from lasat_ray.rng import RandomKey

MAX_HELD_OUT = 10_000
"""Validation images of a stream at most; they lie in memory."""

_GROUPS_HELD = 32  # row groups that a choice of a few images is spread over, where so many are needed or not
_LOOK = 64  # images whose size and colours are taken for those of all


@dataclass(frozen=True, slots=True, eq=False)
class ImageStream:
    """The training images of parquet files. ``image_shape`` (C,H,W) holds for all of them.

    Image n is row n of the split, not counting the rows ``held`` (int64, ascending) that were set
    aside for validation.
    """

    name: str
    shards: Shards
    num_classes: int
    image_shape: tuple[int, int, int]
    held: Tensor
    options: ReadOptions = ReadOptions()  # noqa: RUF009 - frozen

    def __len__(self) -> int:
        return self.shards.count - len(self.held)

    def take(self, rows: Tensor) -> Images:
        """Some images, in the order of ``rows`` (int64 [M], no image twice); decodes these alone.

        UserError naming the file and row of an image that is damaged or unlike the first ones.
        """
        ordered = rows.sort()
        rows_of_split = self._rows_of_split(ordered.values)
        x, y = _decode(self.shards, rows_of_split, self.num_classes, self.image_shape, self.options)
        back = ordered.indices.argsort()
        return Images(x[back], y[back])

    def hold_out(self, count: int, seed: int, role: str = "validation") -> tuple[ImageStream, Images]:
        """(what is left to train on, ``count`` images or ``MAX_HELD_OUT``) of some row groups chosen
        by the seed: reading images from everywhere would read every file."""
        chosen = self._choose(min(count, MAX_HELD_OUT), RandomKey.of(seed, role))
        held = torch.cat([self.held, self._rows_of_split(chosen)]).sort().values
        return replace(self, held=held), self.take(chosen)

    def sample(self, count: int, seed: int) -> tuple[Tensor, Images]:
        """At most ``count`` images of some row groups chosen by the seed, and which they are, int64 [M]."""
        chosen = self._choose(min(count, len(self)), RandomKey.of(seed, "sample"))
        return chosen, self.take(chosen)

    def counts(self) -> Tensor:
        """Training images of each row group, int64 [G]."""
        held_G = np.diff(np.searchsorted(self.held.numpy(), self.shards.first))
        return torch.from_numpy(np.diff(self.shards.first) - held_G)

    def _choose(self, count: int, key: RandomKey) -> Tensor:
        counts = self.counts()
        order = key.fold_in("groups").permutation(len(counts))
        enough = int((counts[order].cumsum(0) < count).sum()) + 1
        firsts = counts.cumsum(0) - counts
        groups = order[: max(enough, _GROUPS_HELD)].tolist()
        pool = torch.cat([torch.arange(int(counts[g])) + firsts[g] for g in groups])
        return pool[key.permutation(len(pool))[:count]].sort().values

    def _rows_of_split(self, image: Tensor) -> Tensor:
        """Rows that images have in the split: one further for each row held out before them."""
        before = self.held - torch.arange(self.held.numel())
        return image + torch.searchsorted(before, image, right=True)


@dataclass(frozen=True, slots=True, eq=False)
class WindowReader:
    """One worker's images of whole windows; can be sent to another process."""

    images: ImageStream
    order: StreamOrder
    first: int
    end: int

    def __call__(self, window: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Window (epoch, number) -> rows [S,M], x [S,M,C,H,W] uint8, y [S,M], S rounds of M images."""
        rows = self.order.rows(*window, self.first, self.end)
        taken = self.images.take(rows.flatten())
        return rows, taken.x.unflatten(0, rows.shape), taken.y.view(rows.shape)


@dataclass(frozen=True, slots=True)
class Reading:
    """How streams are read: ``window`` images are shuffled together, from ``lanes`` places of an
    epoch at once, ``ahead`` of the rounds."""

    window: int = 16384
    lanes: int = 8
    prefetch: Prefetcher = thread_prefetch


class StreamFeed:
    """A worker's share of a stream; in memory are its images of two windows."""

    def __init__(self, images: ImageStream, share: Shard, reading: Reading, device: torch.device) -> None:
        _check_window(images, reading.window, share.per_round)
        rounds = max(1, reading.window // share.per_round)
        self._order = StreamOrder(images.counts(), share.per_round, rounds, reading.lanes, share.name)
        self._read = WindowReader(images, self._order, share.first, share.end)
        self._ahead, self._device = reading.prefetch, device
        self._window: tuple[Tensor, ...] = ()
        self._coming: Iterator[tuple[Tensor, Tensor, Tensor]] = iter(())
        self._at: tuple[int, int] | None = None

    def __call__(self, round: int) -> tuple[Tensor, Tensor, Tensor]:
        """The images of a round; any round can be asked for, rounds in turn cost least."""
        epoch, step = divmod(round, self._order.rounds_per_epoch)
        number, step = divmod(step, self._order.rounds_per_window)
        if (epoch, number) != self._at:
            self._go_to((epoch, number))
        rows, x, y = (part[step] for part in self._window)
        return rows, to_device(x, self._device), to_device(y, self._device)

    def _go_to(self, window: tuple[int, int]) -> None:
        if self._at is None or window != next(islice(self._windows(self._at), 1, None)):
            self._coming = self._ahead(self._read, self._windows(window))
        self._window = ()  # gone before the next is waited for
        self._window = next(self._coming)
        self._at = window

    def _windows(self, start: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """This window and all after it, epoch after epoch."""
        epoch, number = start
        while True:
            yield epoch, number
            number += 1
            if number == self._order.windows_per_epoch:
                epoch, number = epoch + 1, 0


def open_stream(
    spelling: str,
    place: str,
    image_shape: tuple[int, int, int] | None = None,
    classes: Classes | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
) -> ImageStream:
    """The training files at a path or URL; reads footers and the first images.

    ``image_shape``, ``classes``: what the images must have, else what they are found to have; labels count
    by ``classes``. UserError naming file and remedy.
    """
    where = place if is_url(place) else str(Path(place).expanduser())
    shards = shards_of(find_split(find_folder(where, "stream"), "train"), options)
    if not shards.count:
        raise UserError(f"{spelling}: holds no training images; check the path")
    if classes is None:
        num_classes = len(shards.names) if shards.names else largest_label(shards) + 1
    else:
        num_classes = len(classes)
        shards = _renumbered(shards, classes, spelling)
    x, _ = _decode(shards, torch.arange(min(_LOOK, shards.count)), num_classes, image_shape, options)
    channels, height, width = x.shape[1:]
    return ImageStream(spelling, shards, num_classes, (channels, height, width), torch.arange(0), options)


def load(request: Request) -> ImageDataset:
    """``stream:PATH`` or ``stream:URL``: laid out as for ``parquet:``, read while training.

    The test images are decoded into memory when they are asked for.
    """
    stream = open_stream(request.name, request.place, options=request.options)
    names = stream.shards.names
    classes = Classes(names) if names else Classes.numbered(stream.num_classes)
    openers = test_openers(stream.shards.files[0].rpartition("/")[0], request.options)
    return make_dataset(request, stream, classes, openers, available=stream.shards.count)


def _renumbered(shards: Shards, ours: Classes, spelling: str) -> Shards:
    """The same files with their labels by the numbering of another set."""
    if not shards.names:
        return shards
    mapping = match(Classes(shards.names), ours, spelling, "the training images")
    if mapping is None:
        return shards
    own = {
        file: mapping[shards.numbering[file]] if file in shards.numbering else mapping
        for file in shards.files
    }
    return replace(shards, names=ours.names, numbering=own)


def _decode(
    shards: Shards,
    row_M: Tensor,
    num_classes: int,
    shape: tuple[int, int, int] | None,
    options: ReadOptions,
) -> tuple[Tensor, Tensor]:
    """Rows of a split (ascending): x uint8 [M,C,H,W], y int64 [M]."""
    blobs, names, label_M = read_labelled(shards, row_M.numpy(), num_classes)
    encoded = Encoded(len(blobs), blobs.__getitem__, names.__getitem__)
    x = decode_all(
        encoded,
        side=options.image_size,
        fit=options.fit,
        channels=shape[0] if shape else None,
        remedy=REMEDY,
        background=options.background,
    )
    if shape and len(x) and tuple(x.shape[1:]) != shape:
        told = f"image is {tuple(x.shape[1:])} (C,H,W) but the first is {shape}"
        raise UserError(f"{names[0]}: {told}; {REMEDY}")
    return x, torch.from_numpy(label_M)


def _check_window(images: ImageStream, window: int, per_round: int) -> None:
    """UsageError where a window cannot be had of these files; UserError where memory lacks for two."""
    if len(images) < per_round:
        raise UsageError(
            f"{images.name}: holds {len(images)} training images but a round takes {per_round}; "
            "lower --batch-size or add images"
        )
    sizes = np.diff(images.shards.first)
    largest = int(sizes.argmax())
    if sizes[largest] > window:
        file = images.shards.files[images.shards.file[largest]]
        raise UsageError(
            f"--data.stream-window: {window} images are less than the {sizes[largest]} of a row group of "
            f"{file}; raise it, or write smaller row groups"
        )
    check_bytes(2 * window * int(np.prod(images.image_shape)), f"--data.stream-window {window}")
