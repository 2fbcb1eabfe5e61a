"""Augmentation whose strength a strategy chooses, image by image: after the learner has looked, before the
attack. Instance by instance as AROID (Li, Qiu and Spratling, IJCV 2024) chooses it, with operations of its
own kind: what hides a part of the image, and what changes all of it."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from lasat_ray.data.augmix import chained
from lasat_ray.process_group import numbers_like, to_host
from lasat_ray.rng import RandomKey
from lasat_ray.types import Batch, Strategy

_RATIO = (0.3, 3.3)  # height over width, as random erasing draws it


def augmented(batch: Batch, strategy: Strategy, key: RandomKey) -> Batch:
    """``batch`` with every image varied as far as its strategy says; the same object where none says so.

    ``augmix`` [B] in [0,1] mixes that share of a chain of AugMix's operations into the image, ``erasing`` [B]
    in [0,1) then covers that share of its area with black. Labels stay. What is drawn for image n depends on
    (key, index[n]) alone.
    """
    x = batch.x
    if strategy.augmix is not None:
        x = mixed_in(x, batch.index, key.fold_in("augmix"), strategy.augmix)
    if strategy.erasing is not None:
        x = erased(x, batch.index, key.fold_in("erasing"), strategy.erasing)
    return batch if x is batch.x else dataclasses.replace(batch, x=x)


def mixed_in(x: Tensor, index: Tensor, key: RandomKey, share: Tensor) -> Tensor:
    """(1 - share) x + share z, z one chain of one to three of AugMix's operations on the image in 256 gray
    levels; x [B,C,H,W] in [0,1], ``share`` [B] -> [B,C,H,W]."""
    gray = (x * 255).round().clamp(0, 255).to(torch.uint8)
    other = chained(gray, to_host(index), key).to(x.dtype) / 255
    share = share[:, None, None, None]
    return (1 - share) * x + share * other


def erased(x: Tensor, index: Tensor, key: RandomKey, share: Tensor) -> Tensor:
    """Set a rectangle of ``share`` [B] of each image's area to 0, x [B,C,H,W], up to whole rows and columns.

    Its height is 0.3 to 3.3 times its width, drawn evenly in logarithms, as far as that fits into the image;
    its place is drawn evenly too.
    """
    height, width = x.shape[2:]
    u_B3 = key.uniform(index, (3,), torch.float64)
    share = share.double()
    low, high = (math.log(ratio) for ratio in _RATIO)
    ratio = torch.exp(low + (high - low) * u_B3[:, 0])
    # No wider and no taller than the image: share H/W <= ratio <= H/W / share, which is inf for nothing.
    ratio = ratio.maximum(share * height / width).minimum(height / width / share)
    area = share * height * width
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).round().long()
    lengths = numbers_like(u_B3, [height, width])
    first = (u_B3[:, 1:] * (lengths - sides + 1)).long()
    inside_H, inside_W = (
        (place >= first[:, axis, None]) & (place < (first + sides)[:, axis, None])
        for axis, place in enumerate(torch.arange(n, device=x.device) for n in (height, width))
    )
    return x.masked_fill((inside_H[:, :, None] & inside_W[:, None, :])[:, None], 0)
