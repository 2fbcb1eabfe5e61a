"""Shears, turns and shifts of uint8 images, each image's own, for a whole batch at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lasat_ray.process_group import numbers_like


def sheared_or_turned(x: Tensor, angle: Tensor, shear_x: Tensor, shear_y: Tensor) -> Tensor:
    """Images uint8 [M,C,H,W] about their middle by the nearest pixel, black outside: torchvision's ``rotate``
    by ``angle`` [M] or ``affine`` by the shears [M], in radians, float64."""
    turn = -angle  # torchvision turns against the clock
    a = torch.cos(turn - shear_y) / torch.cos(shear_y)
    b = -torch.cos(turn - shear_y) * torch.tan(shear_x) / torch.cos(shear_y) - torch.sin(turn)
    c = torch.sin(turn - shear_y) / torch.cos(shear_y)
    d = -torch.sin(turn - shear_y) * torch.tan(shear_x) / torch.cos(shear_y) + torch.cos(turn)
    inverse = torch.stack([d, -b, -c, a], 1).view(-1, 2, 2).float()
    height, width = x.shape[2:]
    ys, xs = (torch.arange(side, device=x.device) - (side - 1) / 2 for side in (height, width))
    places = torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)], -1).view(-1, 2)
    half = numbers_like(inverse, [0.5 * width, 0.5 * height])
    grid = (places @ (inverse.transpose(1, 2) / half)).view(-1, height, width, 2)
    found = F.grid_sample(x.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return found.round().to(torch.uint8)


def warped(x: Tensor, matrix: Tensor) -> Tensor:
    """Images uint8 [M,C,H,W] between pixels, black outside, as PIL's ``transform`` with ``AFFINE`` and
    ``BILINEAR``: the pixel at p = (column + 1/2, row + 1/2) is taken from ``matrix`` float64 [M,2,3] times
    (p, 1)."""
    height, width = x.shape[2:]
    ys, xs = (torch.arange(side, device=x.device, dtype=torch.float64) + 0.5 for side in (height, width))
    along, down, fixed = matrix[..., None, None].unbind(2)
    places = along * xs + down * ys[:, None] + fixed
    from_x, from_y = places.unbind(1)
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    low_x, low_y = (from_x - 0.5).floor(), (from_y - 0.5).floor()
    share_x, share_y = (from_x - 0.5 - low_x)[:, None], (from_y - 0.5 - low_y)[:, None]
    batch = torch.arange(len(x), device=x.device)[:, None, None]

    def at(step_y: int, step_x: int) -> Tensor:
        rows = (low_y.long() + step_y).clamp(0, height - 1)
        return x[batch, :, rows, (low_x.long() + step_x).clamp(0, width - 1)].permute(0, 3, 1, 2).double()

    upper = at(0, 0) + (at(0, 1) - at(0, 0)) * share_x
    lower = at(1, 0) + (at(1, 1) - at(1, 0)) * share_x
    found = upper + (lower - upper) * share_y
    return found.masked_fill(~inside[:, None], 0).to(torch.uint8)
