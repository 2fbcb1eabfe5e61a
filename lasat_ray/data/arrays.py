"""Images and labels that a program holds, as ``Images``: arrays or tensors of any usual layout.

Tensors are [N,C,H,W], arrays [N,H,W,C] or [N,H,W]; either may lie the other way round where the number of
channels (1 or 3) tells. Pixels are uint8, or floats in [0,1], which are rounded to 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lasat_ray.data.classes import Classes
from lasat_ray.data.guard import MAX_CLASSES
from lasat_ray.data.images import Images
from lasat_ray.errors import UserError
from lasat_ray.plugins import shown

CHANNELS = (1, 3)
_EXACT = 1e-4
"""So far from a whole number of 255ths a pixel may be before rounding it is told."""


@dataclass(frozen=True, slots=True)
class Given:
    """One part of somebody's data: ``images``, their ``classes``, and ``notes`` on what was done to them."""

    images: Images
    classes: Classes
    notes: tuple[str, ...] = ()


def from_arrays(x: Any, y: Any, class_names: Sequence[str] | None = None, what: str = "data") -> Given:
    """x and y as the head of this file says; y [N] of whole numbers from 0. ``class_names``: class n is
    ``class_names[n]``; None numbers them up to the largest label. UserError in ``what``'s name."""
    pixels, note = read_pixels(x, what)
    labels = read_labels(y, len(pixels), what)
    count = int(labels.max()) + 1 if len(labels) else 0
    classes = Classes.numbered(count) if class_names is None else Classes(_names(class_names))
    if count > len(classes):
        row = int(labels.argmax())
        raise UserError(
            f"{what}: image {row} has label {count - 1} and there are {len(classes)} class names; name every "
            "class"
        )
    return Given(Images(pixels, labels), classes, (note,) if note else ())


def _names(given: Any) -> tuple[str, ...]:
    """Class names as somebody gave them; UserError for one text, whose letters they are not."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise UserError(f"class_names: {given!r} is {shown(given)}; give a list with the name of every class")
    return tuple(map(str, given))


def read_pixels(x: Any, what: str) -> tuple[Tensor, str]:
    """uint8 [N,C,H,W] on the CPU, and what was done to them in words ("" for nothing). UserError for another
    type, layout or range."""
    x_NCHW = channels_first(x, what)
    if x_NCHW.dtype == torch.uint8:
        return x_NCHW.contiguous(), ""
    scaled = checked_floats(x_NCHW, what) * 255
    pixels = scaled.round()
    off = float((scaled - pixels).abs().max()) if scaled.numel() else 0.0
    note = f"{what}: pixels are rounded to 8 bits, by up to {off:.2f}/255" if off > _EXACT * 255 else ""
    return pixels.to(torch.uint8).contiguous(), note


def checked_floats(x: Tensor, what: str) -> Tensor:
    """x of any shape as floats in [0,1]; UserError where it leaves that range."""
    if not x.is_floating_point():
        kind = str(x.dtype).removeprefix("torch.")
        raise UserError(f"{what}: images are {kind}; give uint8, or floats in [0,1]")
    if not x.numel():
        return x
    low, high = float(x.min()), float(x.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # nan compares false
        raise UserError(
            f"{what}: pixels go from {low:.4g} to {high:.4g}; give uint8 or floats in [0,1], and leave "
            "normalization to the net"
        )
    return x.clamp(0, 1)


def channels_first(x: Any, what: str) -> Tensor:
    """[N,C,H,W] on the CPU, of whatever type; UserError for a layout that cannot be told."""
    is_array = not isinstance(x, Tensor)
    try:
        tensor = torch.from_numpy(np.require(x, None, ["C", "W"])) if is_array else x.detach().cpu()
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{what}: images are {_type(x)} ({error}); give one array or tensor of equal sizes"
        ) from None
    layout = layout_of(tensor.shape, is_array, what)
    if layout == "NHW":
        return tensor[:, None]
    return tensor.permute(0, 3, 1, 2) if layout == "NHWC" else tensor


def layout_of(shape: Sequence[int], is_array: bool, what: str) -> str:
    """``NCHW``, ``NHWC`` or ``NHW``; UserError where it cannot be told."""
    if len(shape) == 3:
        return "NHW"
    if len(shape) != 4:
        raise UserError(f"{what}: images have shape {list(shape)}; give [N,C,H,W], [N,H,W,C] or [N,H,W]")
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if last and (is_array or not first):
        return "NHWC"
    if first:
        return "NCHW"
    raise UserError(f"{what}: images have shape {list(shape)}; 1 or 3 channels have to stand second or last")


def read_labels(y: Any, count: int, what: str) -> Tensor:
    """int64 [N] on the CPU; UserError unless they are ``count`` whole numbers of 0 or more."""
    try:
        labels = torch.as_tensor(np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y))
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: labels are {_type(y)} ({error}); give whole numbers [N]") from None
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        kind = str(labels.dtype).removeprefix("torch.")
        raise UserError(f"{what}: labels are {kind} of shape {list(labels.shape)}; give whole numbers [N]")
    if len(labels) != count:
        raise UserError(f"{what}: {count} images but {len(labels)} labels; make them equally many")
    if count and int(labels.min()) < 0:
        row = int(labels.argmin())
        raise UserError(f"{what}: image {row} has label {int(labels[row])}; labels start at 0")
    if count and int(labels.max()) >= MAX_CLASSES:
        row = int(labels.argmax())
        raise UserError(
            f"{what}: image {row} has label {int(labels[row])}; labels are at most {MAX_CLASSES - 1}, number "
            "the classes from 0"
        )
    return labels.long()


def _type(value: Any) -> str:
    return type(value).__name__
