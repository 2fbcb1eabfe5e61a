"""Images of noise, for measurements that no image's content can change."""

from __future__ import annotations

import torch

from lasat_ray.data import Images


def random_images(count: int) -> Images:
    """3x32x32, ten classes in turn; the same in every call."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=rng)
    return Images(x, torch.arange(count) % 10)
