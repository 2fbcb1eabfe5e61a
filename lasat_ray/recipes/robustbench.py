"""The first rows of RobustBench's tables of CIFAR-10 and CIFAR-100, L-inf eps 8/255, as its repository's
``model_info`` files state them; no recipe here trains them, most rest on many millions of synthetic images.

Ranks are not in those files: rows take their places among the others by accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """A net of the table: ``clean``, ``aa`` (AutoAttack) in percent, ``worst`` where another found less.

    ``slug`` is a place in ``NAMES``; ``extra_data``: real images beyond the data set.
    """

    dataset: str
    slug: str
    architecture: str
    clean: float
    aa: float
    worst: float | None = None
    extra_data: bool = False


NAMES = {
    "meansparse": ("MeanSparse (Amini et al.)", "arXiv, Jun 2024"),
    "bartoldson": ("Bartoldson et al.", "ICML 2024"),
    "peng": ("Peng et al.", "BMVC 2023"),
    "wang": ("Wang et al.", "ICML 2023"),
    "mixednuts": ("MixedNUTS (Bai et al.)", "arXiv, Feb 2024"),
    "ikl": ("IKL-AT (Cui et al.)", "NeurIPS 2024"),
    "generated": ("Gowal et al.", "NeurIPS 2021"),
    "dynamics": ("Xu et al.", "ICLR 2023"),
    "filtering": ("Chen and Lee", "Pattern Recognition 2024"),
    "dajat": ("DAJAT (Addepalli et al.)", "NeurIPS 2022"),
}
"""Slug -> name or authors, and venue."""

ROWS = (
    Published("cifar10", "meansparse", "MeanSparse WideResNet-94-16", 93.63, 75.28),
    Published("cifar10", "bartoldson", "WideResNet-94-16", 93.68, 73.71),
    Published("cifar10", "meansparse", "MeanSparse RaWideResNet-70-16", 93.24, 72.08, 68.94, extra_data=True),
    Published("cifar10", "bartoldson", "WideResNet-82-8", 93.11, 71.59),
    Published("cifar10", "peng", "RaWideResNet-70-16", 93.27, 71.07),
    Published("cifar10", "wang", "WideResNet-70-16", 93.25, 70.69),
    Published("cifar10", "mixednuts", "ResNet-152 + WideResNet-70-16", 95.19, 70.08, 69.71, extra_data=True),
    Published("cifar10", "ikl", "WideResNet-28-10", 92.16, 67.73),
    Published("cifar10", "wang", "WideResNet-28-10", 92.44, 67.31),
    Published("cifar10", "generated", "WideResNet-70-16", 88.74, 66.11, 66.10),
    Published("cifar10", "dynamics", "WideResNet-28-10", 93.69, 63.89),
    Published("cifar10", "filtering", "WideResNet-34-20", 86.10, 58.09),
    Published("cifar10", "dajat", "WideResNet-34-10", 88.71, 57.81),
    Published("cifar10", "ikl", "WideResNet-34-10", 85.31, 57.09),
    Published("cifar100", "meansparse", "MeanSparse WideResNet-70-16", 75.17, 44.78),
    Published("cifar100", "wang", "WideResNet-70-16", 75.22, 42.67, 42.66),
    Published("cifar100", "ikl", "WideResNet-28-10", 73.85, 39.18),
    Published("cifar100", "wang", "WideResNet-28-10", 72.58, 38.83, 38.77),
    Published("cifar100", "ikl", "WideResNet-34-10 (AutoAugment)", 65.93, 32.52),
    Published("cifar100", "ikl", "WideResNet-34-10", 65.76, 31.91),
    Published("cifar100", "filtering", "WideResNet-34-10", 64.32, 31.13),
)
"""In each table's order of AutoAttack accuracy."""
