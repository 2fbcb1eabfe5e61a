"""Histogram equalization against torchvision's, channel by channel."""

import pytest
import torch
from torchvision.transforms import functional as tv

from lasat_ray.data.histogram import equalize


@pytest.mark.parametrize("shape", [(50, 3, 8, 8), (20, 1, 5, 7), (4, 3, 32, 32), (5, 3, 1, 1)])
@pytest.mark.parametrize("values", [256, 40, 2, 1])
def test_it_is_torchvision_s(shape, values):
    x = torch.randint(0, values, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(equalize(x), tv.equalize(x))
    assert torch.equal(equalize(255 - x), tv.equalize(255 - x))
