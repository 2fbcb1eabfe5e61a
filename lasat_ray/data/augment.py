"""Random crops, flips and cutout, for a whole batch at once and on its own device.

Pure functions of images and numbers; the numbers of an image come from its index alone.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lasat_ray.config import DataConfig
from lasat_ray.data.augmix import augmix
from lasat_ray.data.autoaugment import autoaugment
from lasat_ray.data.idbh import SPACES, color_shape, crop_shift, random_erasing
from lasat_ray.errors import UsageError
from lasat_ray.process_group import numbers_like, to_host
from lasat_ray.rng import RandomKey


def check_augment(config: DataConfig, image_shape: tuple[int, int, int]) -> None:
    """UsageError where the settings make no sense for images of this (C, H, W)."""
    side = min(image_shape[1:])
    if config.crop_padding < 0 or config.cutout < 0:
        field, value = (
            ("crop-padding", config.crop_padding) if config.crop_padding < 0 else ("cutout", config.cutout)
        )
        raise UsageError(f"--data.{field}: {value} is negative; 0 switches it off")
    if config.policy in ("autoaugment", *SPACES) and image_shape[0] != 3:
        what = f"varies colours, but images have {image_shape[0]} channel{'s' * (image_shape[0] > 1)}"
        raise UsageError(f"--data.policy: '{config.policy}' {what}; leave it out")
    _check_idbh(config, side)
    if config.pad_mode not in ("zero", "reflect"):
        raise UsageError(f"--data.pad-mode: '{config.pad_mode}' is unknown; choose zero or reflect")
    if config.pad_mode == "reflect" and config.crop_padding >= side:
        raise UsageError(
            f"--data.crop-padding: {config.crop_padding} pixels cannot be reflected from images {side} "
            f"pixels wide; lower it to {side - 1} or less"
        )


def _check_idbh(config: DataConfig, side: int) -> None:
    if config.crop_shift and config.crop_padding:
        what = f"{config.crop_shift} and --data.crop-padding {config.crop_padding} both crop"
        raise UsageError(f"--data.crop-shift: {what}; set --data.crop-padding 0")
    if config.crop_shift >= side:
        what = f"{config.crop_shift} rows cannot be lost by images {side} pixels wide"
        raise UsageError(f"--data.crop-shift: {what}; lower it to {side - 1} or less")
    if config.erasing_area != DataConfig().erasing_area and not config.erasing:
        what = f"{config.erasing_area:g} has no effect without --data.erasing"
        raise UsageError(f"--data.erasing-area: {what}; give it a probability, for example 0.5")


def augment(
    x: Tensor, index: Tensor, key: RandomKey, config: DataConfig, rows: Tensor | None = None
) -> Tensor:
    """Crop, flip and cut out as ``config`` says; [B,C,H,W] in, the same shape and type out, but for AugMix,
    which mixes: float32 in [0,1].

    ``index`` [B] names the images: image n's variation depends on (key, index[n]) alone. ``rows`` [B]: the
    same on the host, where it is known; a policy sorts images by what is done to them there.
    """
    height, width = x.shape[2:]
    rows = to_host(index) if rows is None and config.policy != "none" else rows
    # always five numbers an image, so that switching one kind off leaves the others as they were;
    # float64, for a product with a number of places must not round up to that number
    u_B5 = key.uniform(index, (5,), torch.float64)
    if config.crop_padding:
        offsets = (u_B5[:, :2] * (2 * config.crop_padding + 1)).long()
        x = random_crop(x, config.crop_padding, config.pad_mode, offsets)
    if config.flip:
        x = random_flip(x, u_B5[:, 2] < 0.5)
    if config.crop_shift:
        x = crop_shift(x, index, key, config.crop_shift)
    if rows is not None and config.policy == "autoaugment":
        x = autoaugment(x, rows, key)
    elif rows is not None and config.policy == "augmix":
        x = augmix(x, rows, key)
    elif rows is not None and config.policy in SPACES:
        x = color_shape(x, rows, key, config.policy)
    if config.cutout:
        x = cutout(x, config.cutout, (u_B5[:, 3:] * numbers_like(u_B5, [height, width])).long())
    if config.erasing:
        x = random_erasing(x, index, key, config.erasing, config.erasing_area)
    return x


def random_crop(x: Tensor, padding: int, pad_mode: Literal["zero", "reflect"], offsets: Tensor) -> Tensor:
    """Pad by ``padding`` pixels all round and cut the old size out again at ``offsets``.

    x [B,C,H,W]; offsets [B,2] int64 in 0..2*padding, rows then columns; ``padding`` is the middle.
    """
    height, width = x.shape[2:]
    if pad_mode == "zero":
        padded = F.pad(x, (padding,) * 4)
    else:  # by index, for F.pad reflects no uint8
        rows, columns = (_reflected(side, padding, x.device) for side in (height, width))
        padded = x.index_select(2, rows).index_select(3, columns)
    # a view of every window there is [B,C,2p+1,2p+1,H,W]; indexing then copies one per image
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(x), device=x.device), :, offsets[:, 0], offsets[:, 1]]


def random_flip(x: Tensor, flags: Tensor) -> Tensor:
    """Mirror left to right the images whose flag [B] (bool) is set."""
    return torch.where(flags.view(-1, 1, 1, 1), x.flip(-1), x)


def cutout(x: Tensor, side: int, centers: Tensor) -> Tensor:
    """Set a square to zero in each image: rows and columns ``center - side//2`` and ``side`` onward.

    centers [B,2] int64, row then column; what lies outside of the image is cut off.
    """
    inside_H, inside_W = (_near(length, centers[:, axis], side) for axis, length in enumerate(x.shape[2:]))
    hole = inside_H[:, None, :, None] & inside_W[:, None, None, :]
    return x.masked_fill(hole, 0)


def _near(length: int, center_B: Tensor, side: int) -> Tensor:
    """Which of ``length`` places lie in each image's square; bool [B,length]."""
    first = (center_B - side // 2).view(-1, 1)
    place = torch.arange(length, device=center_B.device)
    return (place >= first) & (place < first + side)


def _reflected(length: int, padding: int, device: torch.device) -> Tensor:
    """Source places of a padded axis, the border pixel not repeated."""
    place = torch.arange(-padding, length + padding, device=device).abs()
    return torch.where(place < length, place, 2 * (length - 1) - place)
