"""The augmentation of IDBH (Li and Spratling, ICLR 2023): CropShift, ColorShape and random erasing, each for
a whole batch at once; what happens to an image depends on its name alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lasat_ray.data.histogram import equalize
from lasat_ray.data.warps import sheared_or_turned
from lasat_ray.process_group import to_device
from lasat_ray.rng import RandomKey

Operation = tuple[float, str, float, float]
"""Probability, name, and the ends of its strength; equal where it has none."""

COLOR_BIASED: tuple[Operation, ...] = (
    (0.125, "color", 0.1, 1.9),
    (0.125, "brightness", 0.5, 1.9),
    (0.125, "contrast", 0.5, 1.9),
    (0.125, "sharpness", 0.1, 1.9),
    (0.125, "autocontrast", 0, 0),
    (0.125, "equalize", 0, 0),
    (0.125, "shear", 0.05, 0.15),
    (0.125, "rotate", 1, 11),
)
SHAPE_BIASED: tuple[Operation, ...] = (
    (0.08, "color", 0.1, 1.9),
    (0.08, "brightness", 0.5, 1.9),
    (0.04, "contrast", 0.5, 1.9),
    (0.08, "sharpness", 0.1, 1.9),
    (0.04, "autocontrast", 0, 0),
    (0.08, "equalize", 0, 0),
    (0.3, "shear", 0.05, 0.35),
    (0.3, "rotate", 1, 31),
)
SPACES = {"color-biased": COLOR_BIASED, "shape-biased": SHAPE_BIASED}
"""The two published sets of operations, for CIFAR-10 and for SVHN."""
_TRIES = 10
_SMALLEST, _RATIO = 0.02, (0.3, 3.3)  # torchvision's: share of the image, and height over width


def crop_shift(x: Tensor, index: Tensor, key: RandomKey, strength: int) -> Tensor:
    """Cut a part out of each image [B,C,H,W] and put it somewhere on black; the same shape and type.

    0 to ``strength`` rows and columns are lost together, which and where to is drawn evenly.
    """
    u_B6 = key.fold_in("crop-shift").uniform(index, (6,), torch.float64)

    def whole(n: int, most: Tensor) -> Tensor:
        return (u_B6[:, n] * (most + 1)).long()

    lost = whole(0, torch.full_like(index, strength))
    lost_x = whole(1, lost)
    shifts = ((lost - lost_x, 2, 3), (lost_x, 4, 5))  # rows, then columns
    batch = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    places, held = [], []
    for (lost_B, cut, put), length in zip(shifts, x.shape[2:], strict=True):
        place = torch.arange(length, device=x.device) + (whole(put, lost_B) - lost_B)[:, None]
        held.append((place >= 0) & (place < length - lost_B[:, None]))
        places.append((place + whole(cut, lost_B)[:, None]).clamp(0, length - 1))
    moved = x[batch, :, places[0][:, :, None], places[1][:, None, :]].permute(0, 3, 1, 2)
    inside = held[0][:, None, :, None] & held[1][:, None, None, :]
    return moved.masked_fill(~inside, 0)


def random_erasing(x: Tensor, index: Tensor, key: RandomKey, probability: float, largest: float) -> Tensor:
    """Set a rectangle of each image [B,C,H,W] to 0 with ``probability`` (Zhong et al. 2020), as torchvision.

    Its area is 2 % to ``largest`` of the image, its height 0.3 to 3.3 times its width; the first of ten draws
    that fits inside is taken.
    """
    numbers = key.fold_in("erasing").uniform(index, (1 + 4 * _TRIES,), torch.float64)
    happens, u_BT4 = numbers[:, 0] < probability, numbers[:, 1:].view(-1, _TRIES, 4)
    height, width = x.shape[2:]
    area = height * width * (_SMALLEST + (largest - _SMALLEST) * u_BT4[:, :, 0])
    low, high = (math.log(ratio) for ratio in _RATIO)
    ratio = torch.exp(low + (high - low) * u_BT4[:, :, 1])
    rows, columns = torch.sqrt(area * ratio).round().long(), torch.sqrt(area / ratio).round().long()
    fits = (rows < height) & (columns < width)
    first = fits.long().argmax(1, keepdim=True)
    hole = (happens & fits.any(1))[:, None, None]
    for axis, (sides, length) in enumerate(((rows, height), (columns, width))):
        side = sides.gather(1, first)
        begin = (u_BT4[:, :, 2 + axis].gather(1, first) * (length - side + 1)).long()
        place = torch.arange(length, device=x.device)
        inside = (place >= begin) & (place < begin + side)
        hole = hole & (inside[:, :, None] if axis == 0 else inside[:, None, :])
    return x.masked_fill(hole[:, None], 0)


def color_shape(x: Tensor, index: Tensor, key: RandomKey, space: str) -> Tensor:
    """One operation of ``SPACES[space]`` on each image, uint8 [B,3,H,W] -> the same; ``index`` [B] on the
    host."""
    u_B4 = key.fold_in("color-shape").uniform(index, (4,), torch.float64)
    chosen, u_B4 = u_B4[:, 0], to_device(u_B4, x.device)
    out, begin = x.clone(), 0.0
    for probability, name, low, high in SPACES[space]:
        rows = ((chosen >= begin) & (chosen < begin + probability)).nonzero()[:, 0]
        begin += probability
        if not len(rows):
            continue
        rows = to_device(rows, x.device)
        strength = low + (high - low) * u_B4[rows, 1]
        if name == "rotate":
            strength = strength.floor()  # whole degrees, the last one left out
        signed = torch.where(u_B4[rows, 2] < 0.5, -strength, strength)
        out[rows] = _done(name, x[rows], strength, signed, u_B4[rows, 3] < 0.5)
    return out


def _done(name: str, x: Tensor, strength: Tensor, signed: Tensor, sideways: Tensor) -> Tensor:
    """The operation on images uint8 [M,3,H,W], its strengths [M]."""
    from torchvision.transforms import functional as tv

    none = torch.zeros_like(signed)
    known: dict[str, Callable[[], Tensor]] = {
        "color": lambda: _blend(x, tv.rgb_to_grayscale(x), strength),
        "brightness": lambda: _blend(x, torch.zeros_like(x), strength),
        "contrast": lambda: _blend(x, tv.rgb_to_grayscale(x).float().mean((1, 2, 3), keepdim=True), strength),
        "sharpness": lambda: x if min(x.shape[2:]) <= 2 else _blend(x, tv.adjust_sharpness(x, 0.0), strength),
        "autocontrast": lambda: tv.autocontrast(x),
        "equalize": lambda: equalize(x),
        "shear": lambda: sheared_or_turned(
            x, none, torch.where(sideways, signed, none), torch.where(sideways, none, signed)
        ),
        "rotate": lambda: sheared_or_turned(x, torch.deg2rad(signed), none, none),
    }
    return known[name]()


def _blend(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """share x + (1 - share) other, cut to whole numbers as torchvision does; ``share`` float64 [M]."""
    own, rest = (part.float().view(-1, 1, 1, 1) for part in (share, 1 - share))
    return (own * x + rest * other).clamp(0, 255).to(torch.uint8)
