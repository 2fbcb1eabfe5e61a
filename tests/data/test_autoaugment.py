"""AutoAugment by batches is torchvision's, image by image, and is drawn by an image's name."""

import pytest
import torch
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

from lasat_ray.config import DataConfig
from lasat_ray.data.augment import augment, check_augment
from lasat_ray.data.autoaugment import autoaugment, policies
from lasat_ray.errors import UsageError
from lasat_ray.rng import RandomKey

from .conftest import make_images


def test_every_operation_is_torchvision_s(monkeypatch):
    """900 images: all pairs, each with and without its operations, in both directions."""
    x, index, key = make_images(900, (3, 12, 9)).x, torch.arange(900) + 5, RandomKey.of(3)
    found = autoaugment(x, index, key)
    u = key.fold_in("autoaugment").uniform(index, (5,), torch.float64)
    theirs, seen = AutoAugment(AutoAugmentPolicy.CIFAR10), set()
    for n in range(900):
        drawn = int(u[n, 0] * 25), u[n, 1:3], (u[n, 3:] >= 0.5).long()
        monkeypatch.setattr(theirs, "get_params", lambda count, drawn=drawn: drawn)
        assert torch.equal(found[n], theirs(x[n])), policies()[drawn[0]]
        seen |= {(drawn[0], int(sign)) for sign in drawn[2]}
    assert len(seen) == 50 and not torch.equal(found, x)


def test_an_image_is_varied_by_its_index_alone_between_crop_and_cutout():
    config = DataConfig(crop_padding=2, flip=True, cutout=3, policy="autoaugment")
    x, index, key = make_images(30, (3, 8, 8)).x, torch.arange(100, 130), RandomKey.of(1, "augment", 7)
    whole = augment(x, index, key, config)
    alone = torch.cat([augment(x[n : n + 1], index[n : n + 1], key, config) for n in range(30)])
    assert torch.equal(whole, alone) and (whole == 0).all(1).flatten(1).sum(1).min() > 0
    plain = augment(x, index, key, DataConfig(crop_padding=2, flip=True))
    holes = DataConfig(crop_padding=0, flip=False, cutout=3)
    assert torch.equal(whole, augment(autoaugment(plain, index, key), index, key, holes))


def test_gray_images_have_no_colours_to_vary():
    with pytest.raises(
        UsageError, match=r"--data.policy: 'autoaugment' varies colours, but images have 1 channel;"
    ):
        check_augment(DataConfig(policy="autoaugment"), (1, 8, 8))
