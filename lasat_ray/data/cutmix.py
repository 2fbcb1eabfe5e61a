"""CutMix: a box of another image is pasted in, and the labels mix by area (Yun et al. 2019), as
Rebuffi et al. 2021 use it in adversarial training. No state: partners and boxes have names too."""

from __future__ import annotations

import torch
from torch import Tensor

from lasat_ray.rng import RandomKey


def partners(index: Tensor, count: int, key: RandomKey) -> Tensor:
    """Which of the ``count`` training images is pasted into each image, int64 [B]."""
    return key.fold_in("partner").integers(index, (), count)


def boxes(index: Tensor, height: int, width: int, key: RandomKey) -> Tensor:
    """True where the other image shows, [B,H,W]: a box whose share of the area is uniform in [0,1)
    around a uniform centre, cut by the border."""
    u_B3 = key.fold_in("box").uniform(index, (3,), torch.float64)
    side = u_B3[:, :1].sqrt()
    inside = []
    for u, size in ((u_B3[:, 1:2], height), (u_B3[:, 2:], width)):
        place = torch.arange(size, device=index.device, dtype=torch.float64)[None]
        centre, half = (u * size).floor(), (side * size / 2).floor()
        inside.append((place >= centre - half) & (place < centre + half))
    return inside[0][:, :, None] & inside[1][:, None, :]


def cutmix(x: Tensor, other: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """x, other [B,C,H,W] and inside [B,H,W] -> mixed images and the share of x left, float64 [B]."""
    share = 1.0 - inside.double().mean((1, 2))
    return torch.where(inside[:, None], other, x), share
