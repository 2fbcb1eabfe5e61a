"""Where the images of each round come from: this worker's share, round by round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lasat_ray.data.images import Images
from lasat_ray.process_group import indexed, to_device
from lasat_ray.rng import RandomKey

RoundSource = Callable[[int], tuple[Tensor, Tensor, Tensor]]
"""round -> rows [M] int64 on the host, x [M,C,H,W] uint8 and y [M] int64 on the device."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Places ``first``..``end`` - 1 of the ``per_round`` images that each round takes from a set, in
    the order that goes by ``name``."""

    per_round: int
    first: int
    end: int
    name: tuple[int | str, ...]


class MemoryFeed:
    """A worker's share of images in memory.

    An epoch is shuffled whole. What is left at its end, less than a round, is left out, or with
    ``endless`` goes into the next epoch's first round.
    """

    def __init__(self, store: Store, share: Shard, *, endless: bool) -> None:
        self._store, self._share = store, share
        self._order = _EndlessOrder(store.count, share.name)
        self._rounds = None if endless else store.count // share.per_round

    def __call__(self, round: int) -> tuple[Tensor, Tensor, Tensor]:
        """The images of any round, in any order, at about equal cost."""
        share = self._share
        start = round * share.per_round
        if self._rounds is not None:
            epoch, step = divmod(round, self._rounds)
            start = epoch * self._store.count + step * share.per_round
        rows = self._order.span(start + share.first, share.end - share.first)
        return (rows, *self._store.gather(to_device(rows, self._store.home)))


class Store:
    """Images where they are quickest to pick from: ``home`` is the device when they fit there, else the
    CPU."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self.count = len(images)
        self.device = indexed(device)
        fits = self.device.type == "cuda" and _fits(images.x, self.device)
        self.home = self.device if fits or self.device.type == "cpu" else torch.device("cpu")
        self._x, self._y = images.x.to(self.home), images.y.to(self.home)

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [M,C,H,W] and int64 [M] on the device, for rows [M] at ``home``."""
        if self.home == self.device:
            return self._x.index_select(0, rows), self._y.index_select(0, rows)
        x = torch.empty(len(rows), *self._x.shape[1:], dtype=torch.uint8, pin_memory=True)
        torch.index_select(self._x, 0, rows, out=x)
        y = to_device(self._y.index_select(0, rows), self.device)
        return x.to(self.device, non_blocking=True), y


class _EndlessOrder:
    """0..n-1 shuffled anew every epoch; keeps the epoch it was last asked for."""

    def __init__(self, n: int, name: tuple[int | str, ...]) -> None:
        self._n, self._name = n, name
        self._kept: tuple[int, Tensor] | None = None

    def epoch(self, epoch: int) -> Tensor:
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, RandomKey.of(*self._name, epoch).permutation(self._n)
        return self._kept[1]

    def span(self, start: int, count: int) -> Tensor:
        """``count`` rows from place ``start`` of all epochs strung together."""
        parts = []
        while count:
            epoch, first = divmod(start, self._n)
            parts.append(self.epoch(epoch)[first : first + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _fits(x: Tensor, device: torch.device) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    return x.nbytes < 0.5 * free
