"""The L-inf ball around each image, cut by the pixel range: where attacks start and stay."""

from __future__ import annotations

import torch
from torch import Tensor

from lasat_ray.rng import Stream

NORMAL_START = 0.001  # TRADES starts from x + 0.001 * standard normal


def per_image(value_B: Tensor, x: Tensor) -> Tensor:
    """[B] -> [B,1,1,1] in the images' dtype, to meet [B,C,H,W]; bool stays bool."""
    shaped = value_B.view(-1, *[1] * (x.dim() - 1))
    return shaped if shaped.dtype == torch.bool else shaped.to(x.dtype)


def project(delta: Tensor, x: Tensor, eps: Tensor) -> Tensor:
    """Clip to the budget first, then so that x + delta stays in [0,1]. All [B,C,H,W] or broadcast."""
    return torch.clamp(torch.clamp(delta, -eps, eps), -x, 1 - x)


def start(kind: str, x: Tensor, radius_B: Tensor, index_B: Tensor, stream: Stream) -> Tensor:
    """The first perturbation, [B,C,H,W].

    ``uniform``: uniform within ``radius_B``, cut by the pixel range; ``normal``: 0.001 times a
    standard normal, not cut (TRADES); ``zero``: the clean image.
    """
    if kind == "zero":
        return torch.zeros_like(x)
    shape = tuple(x.shape[1:])
    if kind == "normal":
        return NORMAL_START * stream.normal(index_B, shape, x.dtype)
    if kind == "uniform":
        noise = stream.uniform(index_B, shape, x.dtype).mul_(2).sub_(1)
        return torch.clamp(noise * per_image(radius_B, x), -x, 1 - x)
    raise AssertionError(f"start '{kind}' passed validation unknown")
