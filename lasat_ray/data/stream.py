"""Training images that stay in their parquet files: only a window of them is decoded at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lasat_ray.config.urls import is_url
from lasat_ray.data.decode import Encoded, decode_all
from lasat_ray.data.feed import Shard
from lasat_ray.data.guard import check_bytes
from lasat_ray.data.images import ImageDataset, Images, Request, number_names
from lasat_ray.data.parquet import REMEDY, find_test, load_test
from lasat_ray.data.prefetch import Prefetcher, thread_prefetch
from lasat_ray.data.shards import Shards, find_folder, find_split, largest_label, read_labelled, read_shards
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

    def __len__(self) -> int:
        return self.shards.count - len(self.held)

    def take(self, rows: Tensor) -> Images:
        """Some images, in the order of ``rows`` (int64 [M], no image twice); decodes these alone.

        UserError naming the file and row of an image that is damaged or unlike the first ones.
        """
        ordered = rows.sort()
        x, y = _decode(self.shards, self._rows_of_split(ordered.values), self.num_classes, self.image_shape)
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
        return to_device(rows, self._device), to_device(x, self._device), to_device(y, self._device)

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
    num_classes: int | None = None,
) -> ImageStream:
    """The training files at a path or URL; reads footers and the first images.

    ``image_shape``, ``num_classes``: what the images must have, else what they are found to have.
    UserError naming file and remedy.
    """
    where = place if is_url(place) else str(Path(place).expanduser())
    shards = read_shards(find_split(find_folder(where, "stream"), "train"))
    if not shards.count:
        raise UserError(f"{spelling}: holds no training images; check the path")
    if num_classes is None:
        num_classes = len(shards.names) if shards.names else largest_label(shards) + 1
    x, _ = _decode(shards, torch.arange(min(_LOOK, shards.count)), num_classes, image_shape)
    channels, height, width = x.shape[1:]
    return ImageStream(spelling, shards, num_classes, (channels, height, width), torch.arange(0))


def load(request: Request) -> ImageDataset:
    """``stream:PATH`` or ``stream:URL``: laid out as for ``parquet:``, read while training.

    The test images are decoded into memory when they are asked for.
    """
    stream = open_stream(request.name, request.place)
    names = stream.shards.names or number_names(stream.num_classes)
    folder = stream.shards.files[0].rpartition("/")[0]
    test = partial(load_test, find_test(folder), len(names), stream.image_shape[0], request.test_rows)
    return ImageDataset(request.name, stream, names, test)


def _decode(
    shards: Shards, row_M: Tensor, num_classes: int, shape: tuple[int, int, int] | None
) -> tuple[Tensor, Tensor]:
    """Rows of a split (ascending): x uint8 [M,C,H,W], y int64 [M]."""
    blobs, names, label_M = read_labelled(shards, row_M.numpy(), num_classes)
    encoded = Encoded(len(blobs), blobs.__getitem__, names.__getitem__)
    x = decode_all(encoded, channels=shape[0] if shape else None, remedy=REMEDY)
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
