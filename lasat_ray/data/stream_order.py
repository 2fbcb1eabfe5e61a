"""Which image of a stream stands where in an epoch: a shuffle that a worker can find without the images.

Every epoch strings the row groups together in a new order and cuts the string into as many equal
*lanes* as are read at once; each round takes some images of every lane. A *window* of rounds is
shuffled lane by lane. So a worker reads the groups of its own lanes and nothing else, whoever the
other workers are, and a resumed run opens the one window it stands in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lasat_ray.rng import RandomKey


@dataclass(frozen=True, slots=True, eq=False)
class StreamOrder:
    """``counts`` [G] int64: images of each row group; image n is the n-th of all groups in turn.

    ``per_round`` images make a round, ``rounds_per_window`` rounds a window. What is left at the
    end of an epoch, less than a round, is left out; the next epoch leaves out others.
    """

    counts: Tensor
    per_round: int
    rounds_per_window: int
    lanes: int
    name: tuple[int | str, ...]

    @property
    def rounds_per_epoch(self) -> int:
        return int(self.counts.sum()) // self.per_round

    @property
    def windows_per_epoch(self) -> int:
        return -(-self.rounds_per_epoch // self.rounds_per_window)

    def rows(self, epoch: int, window: int, first: int, end: int) -> Tensor:
        """The images at places first..end-1 of each round of a window; int64 [rounds, end - first]."""
        start = window * self.rounds_per_window
        rounds = min(self.rounds_per_window, self.rounds_per_epoch - start)
        parts = []
        for lane in range(min(self.lanes, self.per_round)):
            left, right = (n * self.per_round // min(self.lanes, self.per_round) for n in (lane, lane + 1))
            if left < end and right > first:
                shuffle = RandomKey.of(*self.name, "window", epoch, window, lane).permutation
                shuffled = shuffle(rounds * (right - left)).view(rounds, right - left)
                place = self.rounds_per_epoch * left + start * (right - left) + shuffled
                parts.append(place[:, max(first - left, 0) : end - left])
        return self._images_at(torch.cat(parts, 1), epoch)

    def _images_at(self, place: Tensor, epoch: int) -> Tensor:
        """The images at some places of the epoch's string of row groups; any shape."""
        order = RandomKey.of(*self.name, "groups", epoch).permutation(len(self.counts))
        ends = self.counts[order].cumsum(0)
        group = torch.searchsorted(ends, place.contiguous(), right=True)
        firsts = self.counts.cumsum(0) - self.counts  # of each group, in the order of the files
        return firsts[order[group]] + place - (ends - self.counts[order])[group]
