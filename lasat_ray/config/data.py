"""Where images come from, and how they are varied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lasat_ray.errors import refusal

TESTS_ALONE = {"cifar10.1": "cifar10"}
"""Sets by name that have no training images -> the set whose classes theirs are."""


def check_trained_on(dataset: str) -> None:
    """UsageError where ``dataset`` has no training images."""
    if dataset in TESTS_ALONE:
        remedy = f"train on {TESTS_ALONE[dataset]}, and evaluate a net on it"
        raise refusal("--dataset", f"'{dataset}'", "has test images alone", remedy)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where images come from and how they are varied."""

    root: str = "~/.cache/lasat_ray"
    """Folder of the torchvision data sets; they are downloaded there when absent."""
    val_fraction: float = 0.02
    """Share of the training images set aside to choose the best epoch; of a stream at most 10,000."""
    max_train: int | None = None
    """Use only this many training images, chosen by seed."""
    max_test: int | None = None
    """Use only this many test images, even over the classes and the same for every seed."""
    image_column: str | None = None
    """parquet, stream, npz: the column or array of the images; none takes image or img."""
    label_column: str | None = None
    """parquet, stream, npz: the column or array of the labels; none takes label or fine_label."""
    background: Literal["white", "black"] = "white"
    """What shows through transparent pixels."""
    image_size: int | None = None
    """imagefolder, parquet, stream: bring every image to this many pixels a side; none: all have one size."""
    fit: Literal["stretch", "crop"] = "stretch"
    """What image-size does to images that are not square: stretch them, or cut off what stands over."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted from pixels in [0,1] inside the net, one number or one a channel."""
    std: tuple[float, ...] = (1.0,)
    """Pixels are then divided by this inside the net; budgets stay those of pixels in [0,1]."""
    crop_padding: int = 4
    """Pixels of padding before the random crop; 0 switches cropping off."""
    pad_mode: Literal["zero", "reflect"] = "zero"
    """What the padding holds."""
    flip: bool = True
    """Random horizontal flips."""
    crop_shift: int = 0
    """CropShift of IDBH in place of the padded crop: up to so many rows and columns are lost; 0: off."""
    policy: Literal["none", "autoaugment", "augmix", "color-biased", "shape-biased"] = "none"
    """autoaugment: CIFAR-10's; augmix; color-biased, shape-biased: IDBH's; between crop and cutout."""
    erasing: float = 0.0
    """Probability of setting a random rectangle to zero (random erasing), the last step; 0: off."""
    erasing_area: float = 0.33
    """Largest share of the image that such a rectangle covers."""
    cutout: int = 0
    """Side of the square set to zero at a random place, in pixels; 0 switches it off."""
    cutmix: bool = False
    """Paste a box of another image in and mix the labels by area; for losses whose attack has no label."""
    mixup: float = 0.0
    """Mix every image and its label with another, shares from Beta(mixup, mixup); up to 1, 0: off."""
    extra: str | None = None
    """npz:PATH or stream:URL of extra (for example synthetic) training images."""
    extra_fraction: float = 0.0
    """Share of every batch drawn from the extra images."""
    stream_window: int = 16384
    """stream: images shuffled together and held decoded, over all workers; the next so many come along."""
    stream_lanes: int = 8
    """stream: places of an epoch that are read at once; more mixes further, and each worker reads its own."""

    @property
    def mixed_by(self) -> str:
        """The option that mixes labels; empty where none does."""
        return "--data.cutmix" if self.cutmix else "--data.mixup" if self.mixup else ""
