"""Published robustness figures, as ``reported``: nothing here was measured by this project.

Source: the tables and leaderboard excerpts of the LAS-AT talk (CVPR 2022): AutoAttack, L-inf,
eps 8/255. Percentages.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row; ``rank`` and ``venue`` where it stands in a public leaderboard."""

    dataset: str
    method: str
    clean: float
    aa: float
    architecture: str
    extra_data: bool = False
    rank: int | None = None
    venue: str = ""


UNCOVERING = "Uncovering the Limits of Adversarial Training against Norm-Bounded Adversarial Examples"
FIXING = "Fixing Data Augmentation to Improve Adversarial Robustness"
PROPER = "Robustness and Accuracy Could Be Reconcilable by (Proper) Definition"
HELPER = (
    "Helper-based Adversarial Training: Reducing Excessive Margin to Achieve a Better Accuracy vs. "
    "Robustness Trade-off"
)
LAS_AT = "LAS-AT: Adversarial Training with Learnable Attack Strategy"

_LEADERBOARD_CIFAR100 = [
    PublishedRow("cifar100", UNCOVERING, 69.15, 36.88, "WideResNet-70-16", True, 1, "arXiv, Oct 2020"),
    PublishedRow("cifar100", FIXING, 63.56, 34.64, "WideResNet-70-16", False, 2, "arXiv, Mar 2021"),
    PublishedRow("cifar100", PROPER, 65.56, 33.05, "WideResNet-70-16", False, 3, "arXiv, Feb 2022"),
    PublishedRow("cifar100", FIXING, 62.41, 32.06, "WideResNet-28-10", False, 4, "arXiv, Mar 2021"),
    PublishedRow("cifar100", LAS_AT, 67.31, 31.91, "WideResNet-34-20", False, 5, "arXiv, Mar 2022"),
]
_LEADERBOARD_CIFAR10 = [
    PublishedRow(
        "cifar10",
        "HYDRA: Pruning Adversarially Robust Neural Networks",
        88.98,
        57.14,
        "WideResNet-28-10",
        True,
        31,
        "NeurIPS 2020",
    ),
    PublishedRow("cifar10", HELPER, 86.88, 57.09, "PreActResNet-18", False, 32, "OpenReview, Jun 2021"),
    PublishedRow(
        "cifar10",
        "LTD: Low Temperature Distillation for Robust Adversarial Training",
        85.21,
        56.94,
        "WideResNet-34-10",
        False,
        33,
        "arXiv, Nov 2021",
    ),
    PublishedRow("cifar10", UNCOVERING, 85.64, 56.88, "WideResNet-34-20", False, 34, "arXiv, Oct 2020"),
    PublishedRow("cifar10", FIXING, 83.53, 56.66, "PreActResNet-18", False, 35, "arXiv, Mar 2021"),
    PublishedRow(
        "cifar10",
        "Improving Adversarial Robustness Requires Revisiting Misclassified Examples",
        87.50,
        56.29,
        "WideResNet-28-10",
        True,
        36,
        "ICLR 2020",
    ),
    PublishedRow("cifar10", LAS_AT, 84.98, 56.26, "WideResNet-34-10", False, 37, "arXiv, Mar 2022"),
]


def _table(dataset: str, architecture: str, rows: dict[str, tuple[float, float]]) -> list[PublishedRow]:
    return [PublishedRow(dataset, name, clean, aa, architecture) for name, (clean, aa) in rows.items()]


_PAPER = [
    *_table(
        "cifar10",
        "WideResNet-34-10",
        {
            "PGD-AT": (85.17, 51.69),
            "TRADES": (85.72, 53.40),
            "MART": (84.17, 51.10),
            "FAT": (87.97, 47.48),
            "GAIRAT": (86.30, 40.30),
            "AWP": (85.57, 53.90),
            "LBGAT": (88.22, 52.23),
            "LAS-AT (paper, Table 2)": (86.23, 53.58),
            "LAS-TRADES (paper, Table 2)": (85.24, 54.15),
            "LAS-AWP (paper, Table 2)": (87.74, 55.52),
        },
    ),
    *_table(
        "cifar100",
        "WideResNet-34-10",
        {
            "PGD-AT": (60.89, 27.86),
            "TRADES": (58.61, 25.94),
            "SAT": (62.82, 24.57),
            "AWP": (60.38, 28.86),
            "LBGAT": (60.64, 29.33),
            "LAS-AT (paper, Table 3)": (61.80, 29.03),
            "LAS-TRADES (paper, Table 3)": (60.62, 28.12),
            "LAS-AWP (paper, Table 3)": (64.89, 30.77),
        },
    ),
    *_table(
        "tiny-imagenet",
        "PreActResNet-18",
        {
            "PGD-AT": (43.98, 13.78),
            "TRADES": (39.16, 12.32),
            "AWP": (41.48, 17.34),
            "LAS-AT (paper, Table 4)": (44.86, 16.74),
            "LAS-TRADES (paper, Table 4)": (41.38, 14.08),
            "LAS-AWP (paper, Table 4)": (45.26, 18.42),
        },
    ),
    *_table(
        "gtsrb",
        "",
        {
            "Clean": (98.22, 9.77),
            "PGD-AT": (90.34, 57.54),
            "TRADES": (87.35, 59.99),
            "AWP": (91.82, 62.24),
            "LAS-AT (talk)": (91.98, 62.07),
            "LAS-TRADES (talk)": (88.67, 61.09),
            "LAS-AWP (talk)": (93.17, 65.21),
        },
    ),
]

PUBLISHED: tuple[PublishedRow, ...] = (*_LEADERBOARD_CIFAR100, *_LEADERBOARD_CIFAR10, *_PAPER)
