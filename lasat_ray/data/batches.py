"""Images -> the batch of any round, without state: a resumed run asks for the next number.

Which images a round holds, and how they are varied, depends on the seed, the round and the
images, never on how many workers share the batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lasat_ray.config import DataConfig
from lasat_ray.data.augment import augment as vary
from lasat_ray.data.augment import check_augment
from lasat_ray.data.cutmix import boxes, cutmix, partners
from lasat_ray.data.images import Images
from lasat_ray.errors import UsageError
from lasat_ray.rng import Stream
from lasat_ray.types import Batch
from lasat_ray.world import World


class Batches:
    """The training batches of one worker.

    ``batch_size`` counts the images of a round over all workers; of these ``extra_fraction``
    (rounded) come from ``extra``. ``augment`` None leaves images as they are. ``device`` and
    ``dtype`` are those of ``Batch.x``. UsageError where these numbers do not fit together.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        seed: int,
        world: World,
        device: torch.device | str,
        dtype: torch.dtype,
        augment: DataConfig | None,
        extra: Images | None = None,
        extra_fraction: float = 0.0,
    ) -> None:
        self._num_extra = _num_extra(batch_size, extra, extra_fraction)
        self._num_main = batch_size - self._num_extra
        _check_sizes(len(images), self._num_main, batch_size, world)
        if augment is not None:
            check_augment(augment, (images.x.shape[1], images.x.shape[2], images.x.shape[3]))
        self._seed, self._world, self._dtype, self._augment = seed, world, dtype, augment
        self._device = torch.device(device)
        self._store = _Store(images, self._device)
        self._order = _EndlessOrder(len(images), seed, "order")
        if extra is not None and self._num_extra:
            self._extra_store = _Store(extra, self._device)
            self._extra_order = _EndlessOrder(len(extra), seed, "extra order")
        self.batch_size = batch_size
        self.rounds_per_epoch = len(images) // self._num_main

    def batch(self, round: int) -> Batch:
        """This worker's share of a round, from 0 on; any round, in any order, at about equal cost."""
        rows = self._share(round)
        x, y = self._gather(rows)
        index = rows.to(x.device)
        if self._augment is not None:
            x = vary(x, index, Stream.of(self._seed, "augment", round), self._augment)
        y_other, share = None, None
        if self._augment is not None and self._augment.cutmix:
            x, y_other, share = self._mix(x, index, round, self._augment)
        return Batch(
            x=_to_float(x, self._dtype),
            y=y,
            index=index,
            global_size=self.batch_size,
            y_other=y_other,
            share=share,
        )

    def _mix(
        self, x: Tensor, index: Tensor, round: int, augment: DataConfig
    ) -> tuple[Tensor, Tensor, Tensor]:
        """CutMix with partners from the whole training set, varied by themselves: what an image
        becomes does not depend on who else is on this worker."""
        stream = Stream.of(self._seed, "cutmix", round)
        other, y_other = self._store.gather(partners(index, self._store.count, stream).cpu())
        other = vary(other, index, stream.child("augment"), augment)
        x, share = cutmix(x, other, boxes(index, x.shape[2], x.shape[3], stream))
        return x, y_other, share.to(self._dtype)

    def _share(self, round: int) -> Tensor:
        """The indices of this worker's images, int64 on the CPU: a slice of the global batch.

        Row r of the extra images is index n_train + r, and stands after the main ones.
        """
        epoch, step = divmod(round, self.rounds_per_epoch)
        rows = self._order.epoch(epoch)[step * self._num_main : (step + 1) * self._num_main]
        if self._num_extra:
            more = self._extra_order.span(round * self._num_extra, self._num_extra)
            rows = torch.cat([rows, more + self._store.count])
        return rows[slice(*self._world.span(self.batch_size))]

    def _gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        num_main = int((index < self._store.count).sum())
        x, y = self._store.gather(index[:num_main])
        if num_main < len(index):
            more_x, more_y = self._extra_store.gather(index[num_main:] - self._store.count)
            x, y = torch.cat([x, more_x]), torch.cat([y, more_y])
        return x, y


def ordered_batches(
    images: Images,
    *,
    batch_size: int,
    device: torch.device | str,
    dtype: torch.dtype,
    rows: Tensor | None = None,
) -> Iterator[Batch]:
    """A set in its own order for evaluation: every image once, the last batch shorter.

    ``rows`` (int64, CPU) restricts it to some images. ``index`` holds rows of ``images``;
    ``global_size`` is the batch's own size.
    """
    if batch_size < 1:
        raise UsageError(f"--evaluation.batch-size: {batch_size} is not a size; give 1 or more")
    device = torch.device(device)
    for index in (torch.arange(len(images)) if rows is None else rows).split(batch_size):
        if not len(index):  # split of nothing yields one empty piece
            return
        x, y = (tensor.index_select(0, index).to(device) for tensor in (images.x, images.y))
        yield Batch(x=_to_float(x, dtype), y=y, index=index.to(device), global_size=len(index))


class _Store:
    """Images where they are quickest to pick from: on the device when they fit."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self.count = len(images)
        self._device = device
        fits = device.type == "cuda" and _fits(images.x, device)
        home = device if fits or device.type == "cpu" else torch.device("cpu")
        self._x, self._y = images.x.to(home), images.y.to(home)

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [M,C,H,W] and int64 [M] on the device, for rows [M] on the CPU."""
        if self._x.device == self._device or self._device.type != "cuda":
            rows = rows.to(self._x.device)
            x, y = self._x.index_select(0, rows), self._y.index_select(0, rows)
            return x.to(self._device), y.to(self._device)
        # Pinning the batch, not the set: the picked rows are a new tensor either way, and
        # PyTorch's pinned allocator reuses that memory only after the copy has finished.
        x = torch.empty(len(rows), *self._x.shape[1:], dtype=torch.uint8, pin_memory=True)
        torch.index_select(self._x, 0, rows, out=x)
        y = self._y.index_select(0, rows).pin_memory()
        return x.to(self._device, non_blocking=True), y.to(self._device, non_blocking=True)


class _EndlessOrder:
    """0..n-1 shuffled anew every epoch; keeps the epoch it was last asked for."""

    def __init__(self, n: int, seed: int, role: str) -> None:
        self._n, self._seed, self._role = n, seed, role
        self._kept: tuple[int, Tensor] | None = None

    def epoch(self, epoch: int) -> Tensor:
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, Stream.of(self._seed, self._role, epoch).permutation(self._n)
        return self._kept[1]

    def span(self, start: int, count: int) -> Tensor:
        """``count`` rows from place ``start`` of all epochs strung together."""
        parts = []
        while count:
            epoch, first = divmod(start, self._n)
            parts.append(self.epoch(epoch)[first : first + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return torch.cat(parts)


def _to_float(x: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 -> [0,1]; the division, not a product with 1/255, makes 8 steps equal 8/255 exactly."""
    return x.to(dtype).div_(255)


def _fits(x: Tensor, device: torch.device) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    return x.nbytes < 0.5 * free


def _num_extra(batch_size: int, extra: Images | None, fraction: float) -> int:
    if not 0 <= fraction < 1:
        raise UsageError(f"--data.extra-fraction: {fraction} is not a share; choose 0 <= fraction < 1")
    count = round(fraction * batch_size)
    if fraction and extra is None:
        raise UsageError(
            f"--data.extra-fraction: {fraction} needs extra images; set --data.extra to npz:PATH"
        )
    if extra is not None and (count == 0 or len(extra) == 0):
        raise UsageError(
            f"--data.extra-fraction: {fraction} of --batch-size {batch_size} takes none of "
            f"{len(extra)} extra images; raise it or drop --data.extra"
        )
    return count


def _check_sizes(n: int, num_main: int, batch_size: int, world: World) -> None:
    if batch_size < 1 or batch_size < world.size:
        raise UsageError(
            f"--batch-size: {batch_size} images cannot be shared by {world.size} workers; raise it"
        )
    if num_main < 1:
        raise UsageError(
            f"--data.extra-fraction: leaves no training image in --batch-size {batch_size}; lower it"
        )
    if n < num_main:
        raise UsageError(
            f"--batch-size: {batch_size} takes {num_main} training images a round but there are only {n}; "
            f"lower it to {n} or less"
        )
