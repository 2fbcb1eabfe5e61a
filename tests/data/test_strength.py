"""Augmentation of a chosen strength against what happens to each image by hand."""

import math

import pytest
import torch

from lasat_ray.data.augmix import OPERATIONS, operation
from lasat_ray.data.strength import augmented, erased, mixed_in
from lasat_ray.rng import RandomKey
from lasat_ray.types import Strategy
from tests.support.helpers import make_batch

from .conftest import make_images

KEY = RandomKey.of(3)
F64 = torch.float64


def pixels(count, shape, least=0):
    """Images of 256 gray levels in [0,1], none of them under ``least``."""
    return make_images(count, shape).x.clamp(min=least).to(F64) / 255


def by_hand(image, u, share):
    """A rectangle of ``share`` of an image [C,H,W] set to 0."""
    height, width = image.shape[1:]
    ratio = 0.3 * (3.3 / 0.3) ** u[0]
    ratio = max(ratio, share * height / width)
    if share:
        ratio = min(ratio, height / (share * width))
    rows = round(math.sqrt(share * height * width * ratio))
    columns = round(math.sqrt(share * height * width / ratio))
    top, left = int(u[1] * (height - rows + 1)), int(u[2] * (width - columns + 1))
    out = image.clone()
    out[:, top : top + rows, left : left + columns] = 0
    return out


@pytest.mark.parametrize("shape", [(3, 12, 8), (1, 4, 30)])
def test_a_rectangle_of_the_chosen_share_is_black(shape):
    x, index = pixels(600, shape, least=1), torch.arange(600) + 5
    share = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.9], dtype=F64).repeat(120)
    found, u = erased(x, index, KEY, share), KEY.uniform(index, (3,), F64)
    wanted = torch.stack([by_hand(x[n], u[n].tolist(), float(share[n])) for n in range(600)])
    assert torch.equal(found, wanted)
    black = (found == 0).all(1)
    # Half a row and half a column are what rounding may take or add.
    assert ((black.double().mean((1, 2)) - share).abs() <= 0.5 / shape[1] + 0.5 / shape[2] + 1e-12).all()
    assert torch.equal(found[::5], x[::5])
    assert black[share == 0.25].any(0).all()  # no pixel is safe


def chain_of(image, row, key):
    """One to three operations on an image [1,C,H,W] uint8 whose index is ``row`` [1]."""
    depth = int(key.fold_in("depth").uniform(row, (1,), F64) * 3) + 1
    for stage in range(depth):
        u = key.fold_in("operation", stage).uniform(row, (3,), F64)[0]
        image = operation(OPERATIONS[int(u[0] * 9)], image, 0.1 + 2.9 * u[1:2], u[2:] > 0.5)
    return image[0]


@pytest.mark.parametrize("shape", [(3, 10, 10), (1, 8, 8)])
def test_the_chosen_share_of_a_chain_of_operations_is_mixed_in(shape):
    x, index = pixels(60, shape), torch.arange(60) + 100
    share = torch.tensor([0.0, 0.3, 1.0], dtype=F64).repeat(20)
    found = mixed_in(x, index, KEY, share)
    for n in range(60):
        gray = (x[n : n + 1] * 255).round().to(torch.uint8)
        other = chain_of(gray, index[n : n + 1], KEY).to(F64) / 255
        wanted = (1 - share[n]) * x[n] + share[n] * other
        torch.testing.assert_close(found[n], wanted, rtol=0, atol=1e-15)
    assert torch.equal(found[::3], x[::3])
    assert (found != x).flatten(1).any(1).sum() > 30


def strategy(count, dtype=F64, **fields):
    ones = torch.ones(count, dtype=dtype)
    return Strategy(eps=ones, num_steps=ones.long(), step_size=ones, **fields)


def test_without_a_strength_the_batch_is_the_same_object_and_with_0_the_same_bits():
    batch = make_batch(pixels(8, (3, 8, 8)).float(), torch.arange(8) % 4)
    assert augmented(batch, strategy(8), KEY) is batch
    none = torch.zeros(8)
    for fields in ({"augmix": none}, {"erasing": none}, {"augmix": none, "erasing": none}):
        found = augmented(batch, strategy(8, **fields), KEY)
        assert torch.equal(found.x, batch.x) and found.x.dtype == batch.x.dtype
        assert found.y is batch.y and found.index is batch.index


def test_what_is_hidden_stays_black_and_an_image_is_varied_by_its_index_alone():
    batch = make_batch(pixels(30, (3, 8, 8), least=1), torch.arange(30) % 4)
    share = torch.linspace(0, 1, 30, dtype=F64)
    both = strategy(30, augmix=share, erasing=share / 2)
    found = augmented(batch, both, KEY).x
    mixed = mixed_in(batch.x, batch.index, KEY.fold_in("augmix"), share)
    assert torch.equal(found, erased(mixed, batch.index, KEY.fold_in("erasing"), share / 2))
    for n in range(30):
        rows = slice(n, n + 1)
        one = make_batch(batch.x[rows], batch.y[rows], batch.index[rows])
        assert torch.equal(augmented(one, both[rows], KEY).x, found[rows])
    assert not torch.equal(augmented(batch, both, KEY.fold_in("next round")).x, found)
