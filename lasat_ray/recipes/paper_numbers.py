"""Published percentages (``time_min``: minutes): the tables of the LAS-AT paper, those of its talk
(GTSRB, the AWP ablation), and the rows of the two public leaderboards that the talk shows.

Nothing here was measured by this project. ``paper.py`` says how each row was trained.
"""

from __future__ import annotations

from dataclasses import dataclass

FULL = ("clean", "pgd10", "pgd20", "pgd50", "cw", "aa")
SHORT = ("clean", "pgd50", "cw", "aa")

COLUMNS: dict[str, tuple[str, ...]] = {
    "Table 1": ("clean", "pgd10", "time_min"),
    "Table 2": FULL,
    "Table 3": FULL,
    "Table 4": SHORT,
    "Table 5": ("clean", "aa"),
    "Table 6": ("clean", "pgd10", "aa"),
    "Table 7": ("clean", "fgsm", "pgd20", "cw"),
    "GTSRB": SHORT,
    "AWP ablation": FULL,
}
"""What a table reports of every row, in the order of the numbers below."""

NUMBERS: dict[str, dict[str, tuple[float, ...]]] = {
    "table1-cifar10-resnet18": {
        "pgd-at": (82.56, 53.15, 261),
        "las-at-k1": (82.88, 53.71, 1378),
        "las-at-k10": (82.38, 53.89, 432),
        "las-at-k20": (82.0, 53.53, 418),
        "las-at-k40": (82.3, 54.29, 365),
        "las-at-k60": (82.1, 53.85, 333),
    },
    "table2-cifar10-wrn34-10": {
        "pgd-at": (85.17, 56.07, 55.08, 54.88, 53.91, 51.69),
        "trades": (85.72, 56.75, 56.1, 55.9, 53.87, 53.40),
        "mart": (84.17, 58.98, 58.56, 58.06, 54.58, 51.10),
        "fat": (87.97, 50.31, 49.86, 48.79, 48.65, 47.48),
        "gairat": (86.30, 60.64, 59.54, 58.74, 45.57, 40.30),
        "awp": (85.57, 58.92, 58.13, 57.92, 56.03, 53.90),
        "lbgat": (88.22, 56.25, 54.66, 54.3, 54.29, 52.23),
        "las-at": (86.23, 57.64, 56.49, 56.12, 55.73, 53.58),
        "las-trades": (85.24, 58.01, 57.07, 56.8, 55.45, 54.15),
        "las-awp": (87.74, 61.09, 60.16, 59.79, 58.22, 55.52),
    },
    "table3-cifar100-wrn34-10": {
        "pgd-at": (60.89, 32.19, 31.69, 31.45, 30.1, 27.86),
        "trades": (58.61, 29.20, 28.66, 28.56, 27.05, 25.94),
        "sat": (62.82, 28.1, 27.17, 26.76, 27.32, 24.57),
        "awp": (60.38, 34.13, 33.86, 33.65, 31.12, 28.86),
        "lbgat": (60.64, 35.13, 34.75, 34.62, 30.65, 29.33),
        "las-at": (61.80, 33.45, 32.77, 32.54, 31.12, 29.03),
        "las-trades": (60.62, 32.99, 32.53, 32.39, 29.51, 28.12),
        "las-awp": (64.89, 37.11, 36.36, 36.13, 33.92, 30.77),
    },
    "table4-tiny-imagenet-preactresnet18": {
        "pgd-at": (43.98, 19.98, 17.6, 13.78),
        "trades": (39.16, 15.74, 12.92, 12.32),
        "awp": (41.48, 22.51, 19.02, 17.34),
        "las-at": (44.86, 22.16, 18.54, 16.74),
        "las-trades": (41.38, 18.36, 14.5, 14.08),
        "las-awp": (45.26, 23.42, 19.88, 18.42),
    },
    "table5-cifar10-wrn70-16": {"gowal": (85.29, 57.20), "las-awp": (85.66, 57.86)},
    "table5-cifar100-wrn34-20": {"lbgat": (62.55, 30.20), "las-awp": (67.31, 31.92)},
    "table6-cifar10-resnet18": {
        "las-at-l1": (81.83, 53.88, 49.06),
        "las-at-l1-l2": (81.54, 53.98, 49.34),
        "las-at-l1-l3": (81.90, 53.89, 49.20),
        "las-at-l1-l2-l3": (82.3, 54.29, 49.89),
    },
    "table7-cifar10-wrn34-10": {
        "madry-at": (87.3, 56.1, 45.8, 46.8),
        "cat": (77.43, 57.17, 46.06, 42.28),
        "dart": (85.03, 63.53, 48.70, 47.27),
        "fat": (87.97, 65.94, 49.86, 48.65),
        "las-madry-at": (84.95, 67.16, 55.61, 54.31),
    },
    "gtsrb": {
        "clean": (98.22, 12.63, 13.28, 9.77),
        "pgd-at": (90.34, 59.02, 60.04, 57.54),
        "trades": (87.35, 61.95, 61.40, 59.99),
        "awp": (91.82, 64.94, 64.69, 62.24),
        "las-at": (91.98, 64.33, 64.06, 62.07),
        "las-trades": (88.67, 63.26, 62.40, 61.09),
        "las-awp": (93.17, 67.03, 67.77, 65.21),
    },
    "ablation-cifar10-resnet18": {
        "awp-steps10-eps8": (80.72, 55.33, 54.78, 54.28, 51.67, 49.44),
        "awp-steps10-eps15": (66.73, 52.24, 52.14, 52.06, 48.1, 47.03),
        "awp-steps15-eps8": (80.13, 55.82, 55.24, 55.13, 51.53, 49.62),
        "las-awp": (83.03, 56.45, 55.76, 55.43, 53.06, 50.77),
    },
}
"""Table -> row -> its numbers, in the order in which recipes are listed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A place in a public leaderboard (AutoAttack, L-inf, eps 8/255); ``clean``, ``aa`` in percent."""

    dataset: str
    rank: int
    slug: str
    model: str
    clean: float
    aa: float

    @property
    def title(self) -> str:
        """Title of the publication."""
        return PUBLICATIONS[self.slug][1]

    @property
    def venue(self) -> str:
        """Venue and year of the publication."""
        return PUBLICATIONS[self.slug][2]

    @property
    def extra_data(self) -> bool:
        """Whether it was trained on real images beyond the data set."""
        return self.rank in EXTRA_DATA


PUBLICATIONS = {
    "gowal": (
        "Gowal et al.",
        "Uncovering the Limits of Adversarial Training against Norm-Bounded Adversarial Examples",
        "arXiv, Oct 2020",
    ),
    "rebuffi": (
        "Rebuffi et al.",
        "Fixing Data Augmentation to Improve Adversarial Robustness",
        "arXiv, Mar 2021",
    ),
    "score": (
        "SCORE",
        "Robustness and Accuracy Could Be Reconcilable by (Proper) Definition",
        "arXiv, Feb 2022",
    ),
    "las-awp": (
        "LAS-AT",
        "LAS-AT: Adversarial Training with Learnable Attack Strategy",
        "arXiv, Mar 2022",
    ),
    "hydra": ("HYDRA", "HYDRA: Pruning Adversarially Robust Neural Networks", "NeurIPS 2020"),
    "hat": (
        "HAT",
        "Helper-based Adversarial Training: Reducing Excessive Margin to Achieve a Better Accuracy vs. "
        "Robustness Trade-off",
        "OpenReview, Jun 2021",
    ),
    "ltd": (
        "LTD",
        "LTD: Low Temperature Distillation for Robust Adversarial Training",
        "arXiv, Nov 2021",
    ),
    "mart": (
        "MART",
        "Improving Adversarial Robustness Requires Revisiting Misclassified Examples",
        "ICLR 2020",
    ),
}
"""Slug -> short name, title, venue."""

EXTRA_DATA = (1, 31, 36)
SYNTHETIC = (2, 3, 4, 32, 35)
"""Ranks of the rows trained on real images beyond the data set, and on a million synthetic ones."""

LEADERBOARD = (
    Entry("cifar100", 1, "gowal", "wrn-70-16", 69.15, 36.88),
    Entry("cifar100", 2, "rebuffi", "wrn-70-16", 63.56, 34.64),
    Entry("cifar100", 3, "score", "wrn-70-16", 65.56, 33.05),
    Entry("cifar100", 4, "rebuffi", "wrn-28-10", 62.41, 32.06),
    Entry("cifar100", 5, "las-awp", "wrn-34-20", 67.31, 31.91),
    Entry("cifar10", 31, "hydra", "wrn-28-10", 88.98, 57.14),
    Entry("cifar10", 32, "hat", "preact_resnet18", 86.88, 57.09),
    Entry("cifar10", 33, "ltd", "wrn-34-10", 85.21, 56.94),
    Entry("cifar10", 34, "gowal", "wrn-34-20", 85.64, 56.88),
    Entry("cifar10", 35, "rebuffi", "preact_resnet18", 83.53, 56.66),
    Entry("cifar10", 36, "mart", "wrn-28-10", 87.50, 56.29),
    Entry("cifar10", 37, "las-awp", "wrn-34-10", 84.98, 56.26),
)
"""Both leaderboards in the order of their ranks."""
