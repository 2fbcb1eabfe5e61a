"""Encoded image files -> one uint8 tensor, by a pool of threads.

JPEG goes to torchvision, everything else and every resize to PIL. Measured on 2 cores, 32x32 JPEG:
PIL 5,100 images a second and no faster with threads (it is bound by Python code), torchvision
14,800 on one thread; 64x64 JPEG: PIL 3,500, torchvision 7,900 and 17,800 on two threads. Both gave
equal bits on 1,000 CIFAR-10 JPEGs. Tasks are runs of images: one task an image halved the speed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lasat_ray.data.guard import check_bytes, check_pixels, reading
from lasat_ray.errors import UserError

_RUN = 64
# PIL would also open formats that start other programs (EPS starts Ghostscript)
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_GREY = ("1", "L", "LA")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True, slots=True)
class Encoded:
    """``count`` encoded images: ``read(n)`` gives the bytes of one, ``where(n)`` its name in messages."""

    count: int
    read: Callable[[int], bytes]
    where: Callable[[int], str]


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
    out = torch.empty(encoded.count, 3, height, width, dtype=torch.uint8)
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
    return out if channels == 3 or coloured.any() else out[:, :1].contiguous()


def _num_threads() -> int:
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _decode_one(encoded: Encoded, n: int, side: int | None) -> Tensor:
    """One image, uint8 [1 or 3,H,W]."""
    where = encoded.where(n)
    with reading(where):
        blob = encoded.read(n)
        if not blob:
            raise UserError(f"{where}: is empty; replace it with an undamaged copy")
        shape = _jpeg_shape(blob)
        if shape is None or side is not None:
            return _decode_pil(blob, side, where)
        from torchvision.io import ImageReadMode, decode_jpeg  # slow to import, and digits never needs it

        check_pixels(shape[1], shape[2], where)
        mode = ImageReadMode.GRAY if shape[0] == 1 else ImageReadMode.RGB
        image = decode_jpeg(torch.frombuffer(bytearray(blob), dtype=torch.uint8), mode=mode)
        assert isinstance(image, Tensor) and image.shape == shape
        return image


def _decode_pil(blob: bytes, side: int | None, where: str) -> Tensor:
    with Image.open(io.BytesIO(blob), formats=_FORMATS) as image:  # reads the header only
        check_pixels(image.height, image.width, where)
        if image.mode in _DEEP:
            raise UserError(f"{where}: has more than 8 bits a channel; convert it to 8 bits")
        plain = image.convert("L" if image.mode in _GREY else "RGB")
    if side is not None:
        plain = plain.resize((side, side), Image.Resampling.BILINEAR)
    array_HWC = np.array(plain).reshape(plain.height, plain.width, -1)
    return torch.from_numpy(array_HWC).permute(2, 0, 1)


def _jpeg_shape(blob: bytes) -> tuple[int, int, int] | None:
    """(1 or 3, height, width) from the frame header of an ordinary JPEG.

    None for every other file, and for a JPEG that libjpeg might walk through differently than we
    do (stray bytes, markers without length, four channels): PIL reads those.
    """
    at = 2
    while blob[:2] == b"\xff\xd8" and at + 10 <= len(blob) and blob[at] == 0xFF:
        marker = blob[at + 1]
        if marker in (0xC0, 0xC1, 0xC2):
            height, width = int.from_bytes(blob[at + 5 : at + 7]), int.from_bytes(blob[at + 7 : at + 9])
            return (blob[at + 9], height, width) if blob[at + 9] in (1, 3) else None
        if not (marker in (0xC4, 0xDB, 0xDD, 0xFE) or 0xE0 <= marker <= 0xEF):
            return None
        at += 2 + int.from_bytes(blob[at + 2 : at + 4])
    return None
