"""Encoded image files -> one uint8 tensor, by PIL on a pool of threads.

Measured on 2 cores: 32x32 JPEG 5,100 images a second on one thread and 4,600 on two (Python code
holds the lock); 64x64 JPEG 3,500 and 3,800; the larger the images, the more threads help. A task is
a run of images, for one task an image cost a third of the speed. torchvision's decode_jpeg gave
equal bits at 14,800 a second alone, 8,000 with the header checks that it lacks; but it takes three
seconds to import, and torchvision 0.29 announces its removal.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lasat_ray.data.guard import check_bytes, check_pixels, read_file, reading
from lasat_ray.errors import UserError

_RUN = 64
# PIL would also open formats that start other programs (EPS starts Ghostscript)
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
_GREY = ("1", "L", "LA")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True, slots=True)
class Encoded:
    """``count`` encoded images: ``read(n)`` gives the bytes of one, ``where(n)`` its name in messages."""

    count: int
    read: Callable[[int], bytes]
    where: Callable[[int], str]

    @classmethod
    def files(cls, paths: Sequence[Path]) -> Encoded:
        """One image a file."""
        return cls(len(paths), lambda n: read_file(paths[n]), lambda n: str(paths[n]))


def decode_all(
    encoded: Encoded, *, side: int | None = None, channels: int | None = None, remedy: str
) -> Tensor:
    """All images, uint8 [N,C,H,W].

    ``side``: resize to side x side. ``channels``: 1 or 3, or None for 3 as soon as one image has
    colour, grey ones then being repeated. ``remedy`` ends the message about unequal sizes.
    UserError naming the image that is damaged, too large, of another size, or coloured where 1
    channel was asked for.
    """
    if encoded.count == 0:
        return torch.empty(0, channels or 1, 1, 1, dtype=torch.uint8)
    height, width = _decode_one(encoded, 0, side).shape[1:]
    check_bytes(encoded.count * 3 * height * width, encoded.where(0))
    out = np.empty((encoded.count, 3, height, width), dtype=np.uint8)
    coloured = np.zeros(encoded.count, dtype=bool)

    def run(start: int) -> None:
        for n in range(start, min(start + _RUN, encoded.count)):
            image = _decode_one(encoded, n, side)
            if image.shape[1:] != (height, width):
                raise UserError(
                    f"{encoded.where(n)}: image is {image.shape[2]}x{image.shape[1]} but the first is "
                    f"{width}x{height}; {remedy}"
                )
            coloured[n] = len(image) == 3
            out[n] = image  # one grey channel is repeated by broadcasting

    with ThreadPoolExecutor(_num_threads()) as pool:
        for _ in pool.map(run, range(0, encoded.count, _RUN)):
            pass  # the first error, in the order of the images, ends the rest
    if channels == 1 and coloured.any():
        name = encoded.where(int(coloured.argmax()))
        raise UserError(f"{name}: has colour but the training images are grey; convert one or the other")
    grey = channels != 3 and not coloured.any()
    return torch.from_numpy(out[:, :1].copy() if grey else out)


def opened(blob: bytes, where: str) -> Image.Image:
    """The image with its header read and its size checked; no pixel is decoded yet."""
    if not blob:
        raise UserError(f"{where}: is empty; replace it with an undamaged copy")
    try:
        image = Image.open(io.BytesIO(blob), formats=_FORMATS)
    except UnidentifiedImageError:
        kinds = ", ".join(_FORMATS)
        raise UserError(f"{where}: is no image that can be read ({kinds}); convert or remove it") from None
    check_pixels(image.height, image.width, where)
    return image


def _num_threads() -> int:
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _decode_one(encoded: Encoded, n: int, side: int | None) -> np.ndarray:
    """One image, uint8 [1 or 3,H,W]."""
    where = encoded.where(n)
    with reading(where):
        with opened(encoded.read(n), where) as image:
            if image.mode in _DEEP:
                raise UserError(f"{where}: has more than 8 bits a channel; convert it to 8 bits")
            mode = "L" if image.mode in _GREY else "RGB"
            plain = image if image.mode == mode else image.convert(mode)
            if side is not None:
                plain = plain.resize((side, side), Image.Resampling.BILINEAR)
            array = np.asarray(plain)
        return array[None] if mode == "L" else array.transpose(2, 0, 1)
