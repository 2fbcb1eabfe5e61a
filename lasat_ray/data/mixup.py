"""Mixup: every image is a convex mixture with another one, and so is its label (Zhang et al. 2018). No
state: partners and shares have names, as in ``cutmix``."""

from __future__ import annotations

import torch
from torch import Tensor

from lasat_ray.rng import RandomKey

_TRIES = 32  # each is accepted with a probability of a half or more


def shares(index: Tensor, alpha: float, key: RandomKey) -> Tensor:
    """The part of each image that stays itself, from Beta(alpha, alpha), 0 < alpha <= 1; float64 [B].

    Joehnk's method (1964): x / (x + y) of x = u^(1/alpha), y = v^(1/alpha), the first pair whose sum is at
    most 1.
    """
    pair = key.fold_in("share").uniform(index, (2 * _TRIES,), torch.float64).view(-1, _TRIES, 2)
    pair = pair ** (1 / alpha)
    total = pair.sum(2)
    fits = (total <= 1) & (total > 0)
    first = fits.long().argmax(1, keepdim=True)
    chosen = pair[:, :, 0].gather(1, first)[:, 0] / total.gather(1, first)[:, 0]
    return torch.where(fits.any(1), chosen, 0.5)


def mixup(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """share x + (1 - share) other; [B,C,H,W] in [0,1] twice, ``share`` [B] -> [B,C,H,W]."""
    kept = share[:, None, None, None].to(x.dtype)
    return kept * x + (1 - kept) * other
