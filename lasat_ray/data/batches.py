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
from lasat_ray.data.feed import MemoryFeed, RoundSource, Shard, Store
from lasat_ray.data.images import Images, TrainingImages
from lasat_ray.data.mixup import mixup, shares
from lasat_ray.data.stream import ImageStream, Reading, StreamFeed
from lasat_ray.errors import UsageError
from lasat_ray.process_group import ProcessGroup, indexed, to_device
from lasat_ray.rng import RandomKey
from lasat_ray.types import Batch


class Batches:
    """The training batches of one worker.

    ``batch_size`` counts the images of a round over all workers; of these ``extra_fraction``
    (rounded) come from ``extra``. ``augment`` None leaves images as they are. ``device`` and
    ``dtype`` are those of ``Batch.x``. Streams are read as ``reading`` says. UsageError where these
    numbers do not fit together.
    """

    def __init__(
        self,
        images: TrainingImages,
        *,
        batch_size: int,
        seed: int,
        group: ProcessGroup,
        device: torch.device | str,
        dtype: torch.dtype,
        augment: DataConfig | None,
        extra: TrainingImages | None = None,
        extra_fraction: float = 0.0,
        reading: Reading = Reading(),  # noqa: B008 - frozen
    ) -> None:
        num_extra = _num_extra(batch_size, extra, extra_fraction)
        num_main = batch_size - num_extra
        _check_sizes(len(images), num_main, batch_size, group)
        if augment is not None:
            check_augment(augment, images.image_shape)
            if augment.mixed_by and isinstance(images, ImageStream):
                what = "needs any two training images at once, which a stream does not hold"
                raise UsageError(f"{augment.mixed_by}: {what}; leave it out, or load them with parquet:")
        self._seed, self._dtype, self._augment = seed, dtype, augment
        self._device = indexed(device)
        self._num_rows = len(images) + (0 if extra is None else len(extra))
        self.batch_size = batch_size
        self.rounds_per_epoch = len(images) // num_main
        first, end = group.shard_bounds(batch_size)
        self._store = Store(images, self._device) if isinstance(images, Images) else None

        def feed(source: TrainingImages, per_round: int, start: int, role: str) -> RoundSource:
            """This worker's part of a source's images, which begin at place ``start`` of a round."""
            share = Shard(per_round, max(first - start, 0), min(end - start, per_round), (seed, role))
            if isinstance(source, ImageStream):
                return StreamFeed(source, share, reading, self._device)
            assert isinstance(source, Images)
            store = self._store if source is images and self._store else Store(source, self._device)
            return MemoryFeed(store, share, endless=source is extra)

        self._feeds: list[tuple[RoundSource, int]] = []
        if first < num_main:
            self._feeds.append((feed(images, num_main, 0, "order"), 0))
        if extra is not None and end > num_main:
            self._feeds.append((feed(extra, num_extra, num_main, "extra order"), len(images)))

    def batch(self, round: int) -> Batch:
        """This worker's share of a round, from 0 on; any round, in any order, at about equal cost
        (a stream's rounds cost least in turn)."""
        rows, x, y = self._gather(round)
        index = to_device(rows, self._device)
        if self._augment is not None:
            key = RandomKey.of(self._seed, "augment", round)
            x = vary(x, index, key, self._augment, rows)
        y_other, share = None, None
        if self._augment is not None and self._augment.cutmix:
            x, y_other, share = self._mix(x, index, rows, round, self._augment)
        mixed = _to_float(x, self._dtype)
        if self._augment is not None and self._augment.mixup:
            key = RandomKey.of(self._seed, "mixup", round)
            other, y_other = self._partners(index, rows, key, self._augment)
            share = shares(index, self._augment.mixup, key).to(self._dtype)
            mixed = mixup(mixed, _to_float(other, self._dtype), share)
        return Batch(
            x=mixed,
            y=y,
            index=index,
            global_size=self.batch_size,
            y_other=y_other,
            share=share,
            num_rows=self._num_rows,
        )

    def _gather(self, round: int) -> tuple[Tensor, Tensor, Tensor]:
        """Indices, on the host, and images of this worker's slice of the global batch.

        Row r of the extra images is index n_train + r, and stands after the main ones.
        """
        found = [(feed(round), offset) for feed, offset in self._feeds]
        parts = [(rows + offset if offset else rows, x, y) for (rows, x, y), offset in found]
        rows, x, y = (
            tensors[0] if len(tensors) == 1 else torch.cat(tensors) for tensors in zip(*parts, strict=True)
        )
        return rows, x, y

    def _mix(
        self, x: Tensor, index: Tensor, rows: Tensor, round: int, augment: DataConfig
    ) -> tuple[Tensor, Tensor, Tensor]:
        """CutMix with partners from the whole training set, varied by themselves: what an image
        becomes does not depend on who else is on this worker."""
        key = RandomKey.of(self._seed, "cutmix", round)
        other, y_other = self._partners(index, rows, key, augment)
        x, share = cutmix(x, other, boxes(index, x.shape[2], x.shape[3], key))
        return x, y_other, share.to(self._dtype)

    def _partners(
        self, index: Tensor, rows: Tensor, key: RandomKey, augment: DataConfig
    ) -> tuple[Tensor, Tensor]:
        """The image that each is mixed with, varied, and its label."""
        assert self._store is not None  # checked at the start
        other, y_other = self._store.gather(partners(index, self._store.count, key).to(self._store.home))
        return vary(other, index, key.fold_in("augment"), augment, rows), y_other


def ordered_batches(
    images: Images,
    *,
    batch_size: int,
    device: torch.device | str,
    dtype: torch.dtype,
    rows: Tensor | None = None,
) -> Iterator[Batch]:
    """A set in its own order for evaluation: every image once, the last batch shorter.

    ``rows`` (int64 [M], CPU) restricts it to some images. Batches: ``x`` [B,C,H,W] in [0,1]; ``index`` [B]
    holds rows of ``images``; ``global_size`` is the batch's own size. UsageError for a ``batch_size``
    under 1.
    """
    if batch_size < 1:
        raise UsageError(f"--evaluation.batch-size: {batch_size} is not a size; give 1 or more")
    device = torch.device(device)
    for index in (torch.arange(len(images)) if rows is None else rows).split(batch_size):
        if not len(index):  # split of nothing yields one empty piece
            return
        x, y = (tensor.index_select(0, index).to(device) for tensor in (images.x, images.y))
        yield Batch(x=_to_float(x, dtype), y=y, index=index.to(device), global_size=len(index))


def _to_float(x: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 -> [0,1], where images are not that already; the division, not a product with 1/255, makes
    8 steps equal 8/255 exactly."""
    return x.to(dtype) if x.is_floating_point() else x.to(dtype).div_(255)


def _num_extra(batch_size: int, extra: TrainingImages | None, fraction: float) -> int:
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


def _check_sizes(n: int, num_main: int, batch_size: int, group: ProcessGroup) -> None:
    if batch_size < 1 or batch_size < group.size:
        raise UsageError(
            f"--batch-size: {batch_size} images cannot be shared by {group.size} workers; raise it"
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
