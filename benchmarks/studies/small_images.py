"""A smaller copy of a data set, for studies that a processor can finish: fewer images, of fewer pixels.

    python -m benchmarks.studies.small_images parquet:PATH_TO_CIFAR10 cifar10_16.npz --side 16

Images are averaged over areas (exact means where the sides divide), chosen even over the classes by a fixed
permutation, and keep the names of their classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch.nn.functional import adaptive_avg_pool2d

from lasat_ray.data import Images, load_dataset
from lasat_ray.data.subsets import subset


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to copy and how small."""

    dataset: tyro.conf.Positional[str]
    """As for lasat_ray.train."""
    out: tyro.conf.Positional[Path]
    """The npz file."""
    side: int = 16
    """Pixels of a side."""
    train: int = 6000
    """Training images, validation included."""
    test: int = 2000
    """Test images."""
    root: str = "~/.cache/lasat_ray"
    """Folder of the sets that have no path."""


def smaller(images: Images, count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` images uint8 [M,side,side,C] and their labels [M]."""
    chosen = images.take(subset(images.y, count))
    x_NCHW = adaptive_avg_pool2d(chosen.x.float(), side).round_().to(torch.uint8)
    return x_NCHW.permute(0, 2, 3, 1).numpy(), chosen.y.numpy()


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    dataset = load_dataset(options.dataset, root=options.root, max_train=None, max_test=None, seed=0)
    image, label = smaller(dataset.train.take(torch.arange(len(dataset.train))), options.train, options.side)
    test_image, test_label = smaller(dataset.load_test(), options.test, options.side)
    np.savez_compressed(
        options.out,
        image=image,
        label=label,
        test_image=test_image,
        test_label=test_label,
        class_names=np.array(dataset.class_names),
    )
    print(f"{options.out}: {len(label):,} training and {len(test_label):,} test images of {image.shape[1:]}")


if __name__ == "__main__":
    main()
