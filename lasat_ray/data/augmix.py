"""AugMix (Hendrycks et al., ICLR 2020): each image mixed with a mixture of three chains of operations on it.

Width 3, depth 1 to 3, severity 3, the nine operations of which no test corruption is made, all as published;
without the consistency loss, which would be a method. Operations are PIL's, done to all images of a batch at
once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lasat_ray.data.histogram import equalize
from lasat_ray.data.warps import warped
from lasat_ray.process_group import to_device
from lasat_ray.rng import RandomKey

OPERATIONS = (
    *("autocontrast", "equalize", "posterize", "rotate", "solarize"),
    *("shear_x", "shear_y", "translate_x", "translate_y"),
)
WIDTH, DEPTH, SEVERITY = 3, 3, 3.0
_LEAST = 0.1  # of a level


def augmix(x: Tensor, index: Tensor, key: RandomKey) -> Tensor:
    """uint8 [B,C,H,W] -> float32 [B,C,H,W] in [0,1]; image n depends on (key, index[n]) alone,
    ``index`` [B] on the host."""
    key = key.fold_in("augmix")
    # Dirichlet(1, 1, 1) is three exponentials over their sum, Beta(1, 1) the uniform distribution.
    exponential = -torch.log1p(-key.fold_in("weights").uniform(index, (WIDTH,), torch.float64))
    weight_BW = exponential / exponential.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    share_B = key.fold_in("share").uniform(index, (1,), torch.float64)[:, 0]
    weight_BW, share_B = to_device(weight_BW, x.device), to_device(share_B, x.device)
    mixture = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    for chain in range(WIDTH):
        mixture += weight_BW[:, chain, None, None, None] * chained(x, index, key.fold_in("chain", chain))
    share = share_B[:, None, None, None]
    return (((1 - share) * x + share * mixture) / 255).float()


def chained(x: Tensor, index: Tensor, key: RandomKey) -> Tensor:
    """One to three operations, one after the other, on each image uint8 [B,C,H,W]."""
    depth_B = key.fold_in("depth").integers(index, (1,), DEPTH)[:, 0] + 1
    for stage in range(DEPTH):
        u_B3 = key.fold_in("operation", stage).uniform(index, (3,), torch.float64)
        place_B = torch.where(depth_B > stage, (u_B3[:, 0] * len(OPERATIONS)).long(), -1)
        u_B3, out = to_device(u_B3, x.device), x.clone()
        for place, name in enumerate(OPERATIONS):
            rows = to_device((place_B == place).nonzero()[:, 0], x.device)
            if len(rows):
                level = _LEAST + (SEVERITY - _LEAST) * u_B3[rows, 1]
                out[rows] = operation(name, x[rows], level, u_B3[rows, 2] > 0.5)
        x = out
    return x


def operation(name: str, x: Tensor, level: Tensor, back: Tensor) -> Tensor:
    """``name`` on images uint8 [M,C,H,W] at ``level`` float64 [M] of 10, the other way where ``back`` [M]."""
    from torchvision.transforms import functional as tv

    if name == "autocontrast":
        return tv.autocontrast(x)
    if name == "equalize":
        return equalize(x)
    if name == "posterize":
        lost = 4 + _whole(level, 4)  # of 8 bits
        return ((x.long() >> lost[:, None, None, None]) << lost[:, None, None, None]).to(torch.uint8)
    if name == "solarize":
        threshold = 256 - _whole(level, 256)[:, None, None, None]
        return torch.where(x.long() >= threshold, 255 - x, x)
    return warped(x, _matrix(name, level, torch.where(back, -1.0, 1.0).double(), (x.shape[2], x.shape[3])))


def _whole(level: Tensor, most: float) -> Tensor:
    return (level * most / 10).long()


def _matrix(name: str, level: Tensor, sign: Tensor, size: tuple[int, int]) -> Tensor:
    """What ``warped`` reads, float64 [M,2,3]."""
    matrix = torch.eye(2, 3, dtype=torch.float64, device=level.device).repeat(len(level), 1, 1)
    if name in ("shear_x", "shear_y"):
        axis = int(name == "shear_y")
        matrix[:, axis, 1 - axis] = sign * level * 0.3 / 10
    elif name in ("translate_x", "translate_y"):
        axis = int(name == "translate_y")
        matrix[:, axis, 2] = sign * _whole(level, size[1 - axis] / 3)
    else:
        angle = -torch.deg2rad(sign * _whole(level, 30))
        cos, sin, (height, width) = torch.cos(angle), torch.sin(angle), size
        matrix[:, 0, 0], matrix[:, 0, 1] = cos, sin
        matrix[:, 1, 0], matrix[:, 1, 1] = -sin, cos
        matrix[:, 0, 2] = width / 2 - cos * width / 2 - sin * height / 2
        matrix[:, 1, 2] = height / 2 + sin * width / 2 - cos * height / 2
    return matrix
