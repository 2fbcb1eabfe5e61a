"""AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019): 25 pairs of operations, one drawn for every image.

Pairs and operations are torchvision's. What is done here is to draw by the image's name, and to do equal
operations to all images of a batch at once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from lasat_ray.data.histogram import equalize
from lasat_ray.process_group import to_device
from lasat_ray.rng import RandomKey

SIGNED = (
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
)
"""Operations that go either way, with equal probabilities."""


def autoaugment(x: Tensor, index: Tensor, key: RandomKey) -> Tensor:
    """[B,3,H,W] uint8 -> the same; what happens to image n depends on (key, index[n]) alone, ``index`` [B] on
    the host.

    Each operation of an image's pair happens with the operation's own probability.
    """
    pairs = policies()
    u_B5 = key.fold_in("autoaugment").uniform(index, (5,), torch.float64)
    for stage in (0, 1):
        groups: dict[tuple[str, int, int], list[int]] = defaultdict(list)
        for row, (pair, happens, sign) in enumerate(u_B5[:, [0, 1 + stage, 3 + stage]].tolist()):
            name, probability, place = pairs[int(pair * len(pairs))][stage]
            if happens <= probability:
                way = -1 if name in SIGNED and sign < 0.5 else 1
                groups[name, place or 0, way].append(row)
        out = x.clone()
        for (name, place, way), rows in groups.items():
            at = to_device(torch.tensor(rows), x.device)
            out[at] = operation(name, place, way, (x.shape[2], x.shape[3]))(x[at])
        x = out
    return x


@cache
def policies() -> list[tuple[tuple[str, float, int | None], ...]]:
    """Each pair's operations: name, probability, and magnitude from 0 to 9 where there is one."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    return AutoAugment(AutoAugmentPolicy.CIFAR10).policies


def operation(name: str, place: int, way: int, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """What an operation does to images [M,3,H,W] of ``size`` (H, W), its magnitude at one of ten places from
    none to most."""
    from torchvision.transforms import functional as tv

    def least_to(most: float) -> float:  # in float32, as torchvision has it: a blend is cut to whole numbers
        return way * float(torch.linspace(0.0, most, 10)[place])

    affine: Any = partial(tv.affine, angle=0.0, scale=1.0)
    slant = math.degrees(math.atan(least_to(0.3)))
    moved = {"TranslateX": size[1], "TranslateY": size[0]}.get(name, 0)
    shift = int(least_to(150.0 / 331.0 * moved))
    known: dict[str, Callable[[Tensor], Tensor]] = {
        "ShearX": partial(affine, translate=[0, 0], shear=[slant, 0.0], center=[0, 0]),
        "ShearY": partial(affine, translate=[0, 0], shear=[0.0, slant], center=[0, 0]),
        "TranslateX": partial(affine, translate=[shift, 0], shear=[0.0, 0.0]),
        "TranslateY": partial(affine, translate=[0, shift], shear=[0.0, 0.0]),
        "Rotate": partial(tv.rotate, angle=least_to(30.0)),
        "Brightness": partial(tv.adjust_brightness, brightness_factor=1 + least_to(0.9)),
        "Color": partial(tv.adjust_saturation, saturation_factor=1 + least_to(0.9)),
        "Contrast": partial(tv.adjust_contrast, contrast_factor=1 + least_to(0.9)),
        "Sharpness": partial(tv.adjust_sharpness, sharpness_factor=1 + least_to(0.9)),
        "Posterize": partial(tv.posterize, bits=8 - round(place / (9 / 4))),
        "Solarize": partial(tv.solarize, threshold=float(torch.linspace(255.0, 0.0, 10)[place])),
        "AutoContrast": tv.autocontrast,
        "Equalize": equalize,
        "Invert": tv.invert,
    }
    return known[name]
