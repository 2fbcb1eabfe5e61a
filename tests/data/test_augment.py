"""Batched augmentation against a slow reference, one image at a time, straight from the definition."""

import pytest
import torch

from lasat_ray.config import DataConfig
from lasat_ray.data.augment import augment, check_augment, cutout, random_crop, random_flip
from lasat_ray.errors import UsageError
from lasat_ray.rng import RandomKey

from .conftest import make_images

SHAPES = [(3, 8, 8), (1, 5, 9)]
DTYPES = [torch.uint8, torch.float32, torch.float64]


def random_x(shape, dtype):
    x = make_images(20, shape).x
    return x if dtype == torch.uint8 else x.to(dtype) / 255


def slow_crop(image, padding, pad_mode, offset):
    height, width = image.shape[1:]
    out = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            source = []
            for place, length in ((row + int(offset[0]), height), (column + int(offset[1]), width)):
                place -= padding
                if pad_mode == "reflect":
                    place = -place if place < 0 else place
                    place = 2 * length - 2 - place if place >= length else place
                source.append(place)
            if 0 <= source[0] < height and 0 <= source[1] < width:
                out[:, row, column] = image[:, source[0], source[1]]
    return out


def slow_cutout(image, side, center):
    out = image.clone()
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            top, left = int(center[0]) - side // 2, int(center[1]) - side // 2
            if top <= row < top + side and left <= column < left + side:
                out[:, row, column] = 0
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pad_mode", ["zero", "reflect"])
@pytest.mark.parametrize("padding", [1, 4])
def test_crop_is_the_slow_crop(shape, dtype, pad_mode, padding):
    x = random_x(shape, dtype)
    offsets = torch.randint(0, 2 * padding + 1, (20, 2))
    offsets[0], offsets[1] = 0, 2 * padding
    slow = torch.stack([slow_crop(x[n], padding, pad_mode, offsets[n]) for n in range(20)])
    fast = random_crop(x, padding, pad_mode, offsets)
    assert fast.dtype == dtype and torch.equal(fast, slow)


def test_crop_in_the_middle_changes_nothing():
    x = random_x((3, 8, 8), torch.uint8)
    assert torch.equal(random_crop(x, 3, "zero", torch.full((20, 2), 3)), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_flip_mirrors_the_flagged_images(dtype):
    x = random_x((3, 5, 9), dtype)
    flags = torch.arange(20) % 3 == 0
    slow = torch.stack([x[n].flip(2) if flags[n] else x[n] for n in range(20)])
    assert torch.equal(random_flip(x, flags), slow)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [1, 4, 5, 30])
def test_cutout_is_the_slow_cutout(shape, dtype, side):
    x = random_x(shape, dtype)
    centers = torch.stack([torch.arange(20) % shape[1], torch.arange(20) % shape[2]], dim=1)
    slow = torch.stack([slow_cutout(x[n], side, centers[n]) for n in range(20)])
    assert torch.equal(cutout(x, side, centers), slow)


FULL = DataConfig(crop_padding=2, flip=True, cutout=3)


@pytest.mark.parametrize("config", [FULL, DataConfig(crop_padding=3, pad_mode="reflect")])
def test_an_image_is_varied_by_its_index_alone(config):
    x, index, key = random_x((3, 8, 8), torch.uint8), torch.arange(100, 120), RandomKey.of(1, "augment", 7)
    whole = augment(x, index, key, config)
    alone = torch.cat([augment(x[n : n + 1], index[n : n + 1], key, config) for n in range(20)])
    order = torch.randperm(20)
    assert torch.equal(whole, alone)
    assert torch.equal(augment(x[order], index[order], key, config), whole[order])
    assert not torch.equal(augment(x, index + 1, key, config), whole)
    assert not torch.equal(augment(x, index, RandomKey.of(1, "augment", 8), config), whole)


def test_augment_draws_every_place_about_equally_often():
    """Every offset, both flips and every centre occur; counts within 5 standard deviations."""
    n, padding = 8000, 1
    x = torch.zeros(n, 1, 5, 5, dtype=torch.uint8)
    x[:, :, 2, 2], x[:, :, 2, 3] = 2, 1  # 2 marks the place, 1 its right neighbour
    index, key = torch.arange(n), RandomKey.of(0, "augment", 0)
    out = augment(x, index, key, DataConfig(crop_padding=padding, flip=True))
    place = (out == 2).flatten(1).int().argmax(1)
    counts = torch.bincount(place, minlength=25)[[r * 5 + c for r in (1, 2, 3) for c in (1, 2, 3)]]
    assert counts.sum() == n and (counts - n / 9).abs().max() < 5 * (n / 9) ** 0.5
    right = out.flatten(1).gather(1, (place + 1).view(-1, 1)).squeeze(1) == 1
    assert abs(int(right.sum()) - n / 2) < 5 * (n / 4) ** 0.5
    hole = augment(x * 0 + 9, index, key, DataConfig(crop_padding=0, flip=False, cutout=1)) == 0
    assert hole.sum() == n and (hole.sum((0, 1)) - n / 25).abs().max() < 5 * (n / 25) ** 0.5


def test_switching_one_kind_off_leaves_the_others_alone():
    x, index, key = random_x((3, 8, 8), torch.uint8), torch.arange(20), RandomKey.of(0)
    cropped = augment(x, index, key, DataConfig(crop_padding=2, flip=False))
    only_flip = augment(cropped, index, key, DataConfig(crop_padding=0, flip=True))
    assert torch.equal(only_flip, augment(x, index, key, DataConfig(crop_padding=2, flip=True)))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (DataConfig(crop_padding=-1), "--data.crop-padding: -1 is negative; 0 switches it off"),
        (DataConfig(cutout=-2), "--data.cutout: -2 is negative; 0 switches it off"),
        (DataConfig(pad_mode="wrap"), "--data.pad-mode: 'wrap' is unknown; choose zero or reflect"),
        (
            DataConfig(crop_padding=8, pad_mode="reflect"),
            "--data.crop-padding: 8 pixels cannot be reflected from images 8 pixels wide; "
            "lower it to 7 or less",
        ),
    ],
)
def test_settings_that_cannot_be(config, text):
    with pytest.raises(UsageError) as caught:
        check_augment(config, (3, 8, 8))
    assert str(caught.value) == text
