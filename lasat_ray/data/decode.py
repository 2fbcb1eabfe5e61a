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
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lasat_ray.data.guard import check_bytes, check_pixels, read_file, reading
from lasat_ray.errors import UserError

_RUN = 64
# PIL would also open formats that start other programs (EPS starts Ghostscript)
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "GIF", "TIFF")
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112  # EXIF's tag: how the camera was held

Background = Literal["white", "black"]
"""What shows through transparent pixels."""
Fit = Literal["stretch", "crop"]
"""How an image of other proportions is brought to a size."""


@cache
def suffixes() -> tuple[str, ...]:
    """The endings of file names, in small letters, whose formats are decoded here."""
    known = Image.registered_extensions()
    return tuple(sorted(suffix for suffix, kind in known.items() if kind in _FORMATS))


@dataclass(frozen=True, slots=True)
class Encoded:
    """``count`` encoded images: ``read(n)`` gives the bytes of one, ``where(n)`` its name in messages."""

    count: int
    read: Callable[[int], bytes]
    where: Callable[[int], str]

    @classmethod
    def files(cls, paths: Sequence[Path]) -> Encoded:
        """Encoded images that lie in files of their own, in the order of the paths."""
        return cls(len(paths), lambda n: read_file(paths[n]), lambda n: str(paths[n]))


def decode_all(
    encoded: Encoded,
    *,
    side: int | None = None,
    fit: Fit = "stretch",
    channels: int | None = None,
    remedy: str,
    background: Background = "white",
    notes: Counter[str] | None = None,
) -> Tensor:
    """All images, uint8 [N,C,H,W].

    ``side``: resize to side x side, by ``fit``. ``channels``: 1 or 3, or None for 3 as soon as one image has
    colour, grey ones then being repeated. ``remedy`` ends the message about unequal sizes. What was done
    to how many images (transparency laid on ``background``, ...) is counted in ``notes``.
    UserError naming the image that is damaged, too large, of another size, or coloured where 1
    channel was asked for.
    """
    if encoded.count == 0:
        return torch.empty(0, channels or 1, 1, 1, dtype=torch.uint8)
    height, width = _decode_one(encoded, 0, side, fit, background, Counter()).shape[1:]
    check_bytes(encoded.count * 3 * height * width, encoded.where(0))
    out = np.empty((encoded.count, 3, height, width), dtype=np.uint8)
    coloured = np.zeros(encoded.count, dtype=bool)

    def run(start: int) -> Counter[str]:
        done: Counter[str] = Counter()
        for n in range(start, min(start + _RUN, encoded.count)):
            image = _decode_one(encoded, n, side, fit, background, done)
            if image.shape[1:] != (height, width):
                raise UserError(
                    f"{encoded.where(n)}: image is {image.shape[2]}x{image.shape[1]} but the first is "
                    f"{width}x{height}; {remedy}"
                )
            coloured[n] = len(image) == 3
            out[n] = image  # one grey channel is repeated by broadcasting
        return done

    with ThreadPoolExecutor(_num_threads()) as pool:
        for done in pool.map(run, range(0, encoded.count, _RUN)):  # the first error ends the rest
            if notes is not None:
                notes.update(done)
    if channels == 1 and coloured.any():
        raise _has_colour(encoded.where(int(coloured.argmax())))
    grey = channels != 3 and not coloured.any()
    return torch.from_numpy(out[:, :1].copy() if grey else out)


def check_headers(encoded: Encoded, shape: tuple[int, int, int], *, sized: bool, remedy: str) -> None:
    """UserError for the first image that cannot become (C,H,W); no pixel is decoded.

    ``sized`` False: images are resized, and any size will do.
    """
    channels, height, width = shape
    for n in range(encoded.count):
        where = encoded.where(n)
        with reading(where), opened(encoded.read(n), where) as image:
            wide, high = image.size
            if image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
                wide, high = high, wide
            if sized and (high, wide) != (height, width):
                raise UserError(
                    f"{where}: image is {wide}x{high} but training images are {width}x{height}; {remedy}"
                )
            if channels == 1 and image.mode not in _GREY:
                raise _has_colour(where)


def read_image(
    path: Path, shape: tuple[int, int, int], *, background: Background = "white", fit: Fit = "stretch"
) -> Tensor:
    """One image file of any size as a net takes it: uint8 [C,H,W], resized by ``fit``."""
    where = str(path)
    with reading(where), opened(read_file(path), where) as image:
        return fitted(image, where, shape, background=background, fit=fit)


def fitted(
    image: Image.Image,
    where: str,
    shape: tuple[int, int, int],
    *,
    background: Background = "white",
    fit: Fit = "stretch",
) -> Tensor:
    """An image of PIL, of any size and mode, as a net takes it: uint8 [C,H,W]; ``where``: its name in
    messages. UserError where it has more than 16 bits."""
    channels, height, width = shape
    plain = plain_image(image, where, background, Counter()).convert("L" if channels == 1 else "RGB")
    if plain.size != (width, height):
        plain = _resized(plain, height, width, fit)
    return torch.from_numpy(np.array(plain).reshape(height, width, channels)).permute(2, 0, 1)


def _resized(image: Image.Image, height: int, width: int, fit: Fit) -> Image.Image:
    """Of this size: stretched, or scaled in its own proportions and cut evenly where it stands over."""
    if fit == "crop":
        return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return image.resize((width, height), Image.Resampling.BILINEAR)


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


def _has_colour(where: str) -> UserError:
    return UserError(f"{where}: has colour but the training images are grey; convert one or the other")


def _decode_one(
    encoded: Encoded, n: int, side: int | None, fit: Fit, background: Background, notes: Counter[str]
) -> np.ndarray:
    """One image, uint8 [1 or 3,H,W]."""
    where = encoded.where(n)
    with reading(where):
        with opened(encoded.read(n), where) as image:
            plain = plain_image(image, where, background, notes)
            if side is not None:
                plain = _resized(plain, side, side, fit)
            array = np.asarray(plain)
        return array[None] if plain.mode == "L" else array.transpose(2, 0, 1)


def plain_image(image: Image.Image, where: str, background: Background, notes: Counter[str]) -> Image.Image:
    """The first frame upright, opaque, in 8 bits: mode L or RGB. Every way of reading ends here."""
    if getattr(image, "is_animated", False):
        notes["animated or of several pages: the first is used"] += 1
        image.seek(0)
    grey = image.mode in _GREY
    sixteen = image.mode in _SIXTEEN or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.getexif().get(_ORIENTATION, 1) != 1:
        notes["turned upright by their EXIF orientation"] += 1
        image = ImageOps.exif_transpose(image)
    if sixteen:
        notes["of 16 bits a channel, rounded to 8"] += 1
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UserError(f"{where}: has more than 16 bits a channel; convert it to 8 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = _laid_on(background, image, notes)
    mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _laid_on(background: Background, image: Image.Image, notes: Counter[str]) -> Image.Image:
    """Transparent pixels show the background instead of whatever colour lies hidden in them."""
    layered = image.convert("RGBA")
    if layered.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGBA").convert("RGB")
    notes[f"with transparent pixels, laid on {background}"] += 1
    return Image.alpha_composite(Image.new("RGBA", image.size, background), layered).convert("RGB")
