"""Items of somebody's data set, each an image and a label or a batch of both, as one ``Given``."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lasat_ray.data.arrays import CHANNELS, Given, from_arrays
from lasat_ray.data.decode import plain_image
from lasat_ray.data.part import told_counts
from lasat_ray.plugins import Plugin, shown

Item = tuple[Any, Any]
"""An image (or images) and its label (or labels), of whatever type."""
_PIXELS = "give images of PIL, tensors [C,H,W] or arrays [H,W,C], uint8 or floats in [0,1]"


def pair_of(item: Any, where: str, plugin: Plugin) -> Item:
    """(image, label); UserError for anything else."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise plugin.fault(f"{where} is {shown(item)}{size}", "a data set has to give (image, label)")
    return item[0], item[1]


def from_items(items: Iterable[Item], names: Sequence[str] | None, plugin: Plugin) -> Given:
    """All images of a data set. UserError for the first that is none, or has another size or type."""
    notes: Counter[str] = Counter()
    images: list[Tensor] = []
    labels: list[int] = []
    for n, (image, label) in enumerate(items):
        images.append(_pixels(image, n, plugin, notes))
        labels.append(_label(label, n, plugin))
        if images[n].shape[1:] != images[0].shape[1:] or images[n].dtype != images[0].dtype:
            told = f"image {n} is {_told(images[n])}, the first {_told(images[0])}"
            raise plugin.fault(told, "bring all to one size and type")
    if not images:
        raise plugin.fault("holds no images", "check the data set")
    channels = max(len(image) for image in images)
    x = torch.stack([image.expand(channels, -1, -1) for image in images])
    given = from_arrays(x, np.array(labels), names, plugin.option)
    return Given(given.images, given.classes, (*told_counts(plugin.option, notes), *given.notes))


def from_batches(batches: Iterable[Item], names: Sequence[str] | None, plugin: Plugin) -> Given:
    """All images of a loader, in its order. UserError for the first batch that is none, or unlike the first
    one."""
    found: list[tuple[Tensor, Tensor]] = []
    for n, (images, labels) in enumerate(batches):
        try:
            x, y = torch.as_tensor(images).detach().cpu(), torch.as_tensor(labels).detach().cpu()
        except (TypeError, ValueError, RuntimeError):
            told = f"batch {n} has images that are {shown(images)} and labels that are {shown(labels)}"
            raise plugin.fault(told, "give tensors [B,C,H,W] and whole numbers [B]") from None
        if x.ndim != 4 or y.ndim != 1 or len(x) != len(y):
            told = f"batch {n} has images {list(x.shape)} and labels {list(y.shape)}"
            raise plugin.fault(told, "give images [B,C,H,W] and labels [B]")
        found.append((x, y))
        if x.shape[1:] != found[0][0].shape[1:] or x.dtype != found[0][0].dtype:
            told = f"batch {n} has images {_told(x[:1])}, the first {_told(found[0][0][:1])}"
            raise plugin.fault(told, "bring all to one size and type")
    if not found:
        raise plugin.fault("gives no batch", "check the data set")
    x, y = (torch.cat(parts) for parts in zip(*found, strict=True))
    return from_arrays(x, y, names, plugin.option)


def _pixels(image: Any, n: int, plugin: Plugin, notes: Counter[str]) -> Tensor:
    """One image [C,H,W], uint8 or floats in [0,1]: of PIL, a tensor [C,H,W], or an array [H,W,C] or [H,W]."""
    with plugin.call(f"image {n}"):
        if isinstance(image, Image.Image):
            where = f"{plugin.option}: '{plugin.name}' image {n}"
            image = np.asarray(plain_image(image, where, "white", notes))
        given = image.detach().cpu() if isinstance(image, Tensor) else np.asarray(image)
        if isinstance(given, np.ndarray) and given.dtype.kind in "biuf":
            given = torch.from_numpy(given.copy())
    if not isinstance(given, Tensor):
        raise plugin.fault(f"image {n} is {shown(image)}", _PIXELS)
    tensor = _channels_first(given, isinstance(image, Tensor))
    if tensor.ndim != 3 or tensor.shape[0] not in CHANNELS or not tensor.numel():
        raise plugin.fault(f"image {n} has shape {list(given.shape)}", "give [C,H,W] with 1 or 3 channels")
    if tensor.is_floating_point():
        low, high = float(tensor.min()), float(tensor.max())
        if not (low >= -1e-6 and high <= 1 + 1e-6):  # nan compares false
            remedy = "give uint8 or floats in [0,1], and leave normalization to the net"
            raise plugin.fault(f"image {n} has pixels from {low:.4g} to {high:.4g}", remedy)
    elif tensor.dtype != torch.uint8:
        raise plugin.fault(f"image {n} is {_told(tensor)}", "give uint8, or floats in [0,1]")
    return tensor


def _channels_first(tensor: Tensor, is_tensor: bool) -> Tensor:
    if tensor.ndim == 2:
        return tensor[None]
    last = tensor.ndim == 3 and tensor.shape[2] in CHANNELS
    return tensor.permute(2, 0, 1) if last and (not is_tensor or tensor.shape[0] not in CHANNELS) else tensor


def _label(label: Any, n: int, plugin: Plugin) -> int:
    """A whole number of any type; truth values and numbers with a fraction are none."""
    kind = str(getattr(label, "dtype", type(label).__name__))
    whole = None
    with plugin.call(f"label of image {n}"), suppress(TypeError):
        single = hasattr(label, "shape") and math.prod(label.shape) == 1
        whole = None if "bool" in kind else operator.index(label.item() if single else label)
    if whole is None:
        told = f"label of image {n} is {shown(label)}"
        raise plugin.fault(told, "give whole numbers from 0, and their names as class_names")
    return whole


def _told(image: Tensor) -> str:
    return f"{str(image.dtype).removeprefix('torch.')} {list(image.shape)}"
