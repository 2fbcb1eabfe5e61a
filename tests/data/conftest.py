"""Small images to test with; no file is read."""

import pytest
import torch

from lasat_ray.data import Images


def make_images(count, shape=(3, 8, 8), num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    return Images(x, torch.arange(count) % num_classes)


@pytest.fixture
def images():
    return make_images(53)
