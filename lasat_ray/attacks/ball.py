"""The ball around each image, cut by the pixel range: where attacks start, move and stay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lasat_ray.rng import RandomKey

NORMAL_START = 0.001  # TRADES starts from x + 0.001 * standard normal


def per_image(value_B: Tensor, x: Tensor) -> Tensor:
    """[B] -> [B,1,1,1] in the images' dtype, to meet [B,C,H,W]; bool stays bool."""
    shaped = value_B.view(-1, *[1] * (x.dim() - 1))
    return shaped if shaped.dtype == torch.bool else shaped.to(x.dtype)


def project(delta: Tensor, x: Tensor, eps: Tensor) -> Tensor:
    """Clip to the budget first, then so that x + delta stays in [0,1]. All [B,C,H,W] or broadcast."""
    return torch.clamp(torch.clamp(delta, -eps, eps), -x, 1 - x)


def start(kind: str, x: Tensor, radius_B: Tensor, index_B: Tensor, key: RandomKey) -> Tensor:
    """The first perturbation, [B,C,H,W]; ``radius_B`` [B] in [0,1] pixels, ``index_B`` [B] the images' rows.

    ``uniform``: uniform within ``radius_B``, cut by the pixel range; ``normal``: 0.001 times a
    standard normal, not cut (TRADES); ``normal-cut``: cut by the pixel range (FAT); ``zero``: the
    clean image.
    """
    if kind == "zero":
        return torch.zeros_like(x)
    shape = tuple(x.shape[1:])
    if kind in ("normal", "normal-cut"):
        noise = NORMAL_START * key.normal(index_B, shape, x.dtype)
        return noise if kind == "normal" else torch.clamp(noise, -x, 1 - x)
    if kind == "uniform":
        noise = key.uniform(index_B, shape, x.dtype).mul_(2).sub_(1)
        return torch.clamp(noise * per_image(radius_B, x), -x, 1 - x)
    raise AssertionError(f"start '{kind}' passed validation unknown")


@dataclass(frozen=True, slots=True)
class Ball:
    """One norm's geometry for ``pgd``. Shapes [B,C,H,W]; ``eps`` and ``step`` [B,1,1,1]."""

    ascend: Callable[[Tensor, Tensor], Tensor]
    """(gradient, step) -> the move of that length that raises the objective fastest."""
    project: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(delta, x, eps) -> delta inside the ball, and x + delta inside [0,1]."""
    start: Callable[[Tensor, Tensor, Tensor, RandomKey], Tensor]
    """(x, radius_B, index_B, key) -> a uniform draw from the ball, cut by the pixel range."""


def _uniform_linf(x: Tensor, radius_B: Tensor, index_B: Tensor, key: RandomKey) -> Tensor:
    return start("uniform", x, radius_B, index_B, key)


def _norm(delta: Tensor) -> Tensor:
    """Euclidean length of each image's perturbation, [B,1,1,1], never 0."""
    return delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (delta.dim() - 1))


def _project_l2(delta: Tensor, x: Tensor, eps: Tensor) -> Tensor:
    """Onto the ball first; the cut to [0,1] afterwards only shortens what is left."""
    return torch.clamp(delta * (eps / _norm(delta)).clamp_max(1.0), -x, 1 - x)


def _uniform_l2(x: Tensor, radius_B: Tensor, index_B: Tensor, key: RandomKey) -> Tensor:
    """A normal draw gives the direction; the D-th root makes the radius uniform in volume."""
    size = math.prod(x.shape[1:])
    direction = key.fold_in("direction").normal(index_B, tuple(x.shape[1:]), x.dtype)
    share_B = key.fold_in("radius").uniform(index_B, (1,), x.dtype)[:, 0] ** (1.0 / size)
    return torch.clamp(direction / _norm(direction) * per_image(radius_B * share_B, x), -x, 1 - x)


LINF = Ball(lambda grad, step: step * grad.sign(), project, _uniform_linf)
L2 = Ball(lambda grad, step: step * grad / _norm(grad), _project_l2, _uniform_l2)
BALLS = {"linf": LINF, "l2": L2}
"""Norm -> geometry, of training and evaluation attacks."""
