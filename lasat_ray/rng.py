"""Random numbers as a function of (seed, role, round, image), not of a generator's history.

Each image's draws depend on its row in the data set and on nothing else, so a batch split over two
workers sees what one worker would have seen, and a resumed run needs no generator state.
The mixer is the 32-bit integer hash "lowbias32" (Chris Wellons, 2018), held in int64 tensors and
applied twice with two key words per image.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _hash32(x: Tensor) -> Tensor:
    """A bijection on 32-bit integers with near-perfect avalanche; int64 in, int64 out."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


@dataclass(frozen=True, slots=True)
class RandomKey:
    """A named source of random numbers; same name, same numbers, on any device and any worker."""

    low: int
    high: int

    @classmethod
    def of(cls, *name: int | str) -> RandomKey:
        """For example ``RandomKey.of(seed, "attack start", round)``."""
        digest = hashlib.blake2b("/".join(map(str, name)).encode(), digest_size=8).digest()
        return cls(int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little"))

    def fold_in(self, *name: int | str) -> RandomKey:
        """A stream of its own under this one's name."""
        return RandomKey.of(self.low, self.high, *name)

    def uniform(self, index_B: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uniform in [0,1), [B, *shape]; image n's numbers depend on ``index_B[n]`` alone.

        24 random bits each, so that float32 holds them exactly and 1.0 never appears.
        """
        bits = self._bits(index_B, math.prod(shape))
        return ((bits >> 8).to(dtype) * 2.0**-24).view(len(index_B), *shape)

    def normal(self, index_B: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Standard normal, [B, *shape], by Box and Muller's transform."""
        u = self.uniform(index_B, (2, *shape), torch.float64)
        radius = torch.sqrt(-2.0 * torch.log1p(-u[:, 0]))
        return (radius * torch.cos(2 * math.pi * u[:, 1])).to(dtype)

    def integers(self, index_B: Tensor, shape: tuple[int, ...], high: int) -> Tensor:
        """Uniform integers in [0, high), int64, [B, *shape]."""
        return (self.uniform(index_B, shape, torch.float64) * high).long()

    def permutation(self, n: int) -> Tensor:
        """A random order of 0..n-1, int64 [n] on the CPU."""
        generator = torch.Generator().manual_seed((self.high << 32 | self.low) & (2**63 - 1))
        return torch.randperm(n, generator=generator)

    def _bits(self, index_B: Tensor, count: int) -> Tensor:
        words = _hash32((index_B.long() ^ self.low) & _MASK).view(-1, 1)
        second = _hash32((words + self.high) & _MASK)
        counter = torch.arange(count, device=index_B.device).view(1, -1)
        return _hash32(_hash32((counter + words) & _MASK) ^ second)
