"""Which images a smaller number stands for: one order, the same for every command, even over the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lasat_ray.rng import RandomKey

_NAMED = 5  # classes without images that a message names


def even_order(y: Tensor) -> Tensor:
    """Every row once, int64 [N] for labels y [N]: each beginning of it holds the classes as evenly as can be.

    The order depends on the labels alone, so that whoever asks for the first so many gets the same images.
    What stands in such an order already (a subset that was taken before) keeps its own.
    """
    if not len(y) or bool((_rank(y).diff() >= 0).all()):
        return torch.arange(len(y))
    return evened(y, RandomKey.of("images of a subset").permutation(len(y)))


def evened(y: Tensor, order: Tensor) -> Tensor:
    """The rows of ``order`` [N], moved so that each beginning holds the classes as evenly as can be."""
    return order[_rank(y[order]).argsort(stable=True)]


def _rank(y: Tensor) -> Tensor:
    """How many images of its class come before each, int64 [N]."""
    by_class = y.argsort(stable=True)
    counts = torch.bincount(y)
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(y)) - first[y[by_class]]
    return rank


def subset(y: Tensor, count: int | None) -> Tensor:
    """Rows int64 [M] of ``count`` images: the first of ``even_order``; all, in their own order, where there
    are no more or None is asked for."""
    if count is None or count >= len(y):
        return torch.arange(len(y))
    return even_order(y)[:count]


def coverage(y: Tensor, class_names: Sequence[str], total: int) -> dict[str, Any]:
    """What some images (labels y [M]) are of ``total``: figures for a record, and ``told`` in words."""
    counts = torch.bincount(y, minlength=len(class_names))
    present = counts[counts > 0]
    fewest, most = (int(present.min()), int(present.max())) if len(present) else (0, 0)
    absent = [class_names[n] for n in (counts == 0).nonzero()[:, 0].tolist()]
    many = f"{len(y):,} images" if len(y) == total else f"{len(y):,} of {total:,} images"
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    told = f"{many}, {each} of each of {len(present)} classes"
    return {
        "used": len(y),
        "of": total,
        "classes": len(present),
        "fewest": fewest,
        "most": most,
        "absent": absent,
        "largest_class": most / max(len(y), 1),
        "told": told,
    }


def missing_classes(absent: Sequence[str], what: str) -> str | None:
    """The warning about classes without an image among ``what``; None where there is none."""
    if not absent:
        return None
    some = ", ".join(f"'{name}'" for name in absent[:_NAMED])
    more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
    plural = "classes have" if len(absent) > 1 else "class has"
    return f"{len(absent)} {plural} no image among {what}: {some}{more}; no figure says anything about them"


def cap_told(used: int, of: int, what: str, option: str) -> str | None:
    """``2,250 of 2,700 training images (--data.max-train)``; None where all are used."""
    return f"{used:,} of {of:,} {what} ({option})" if used < of else None
