"""Courses over the epochs of a run: pure functions, so that there is nothing to resume.

Published schedules count epochs from 1 and belong to runs of a certain length; another length
stretches them. Everywhere else in this project epochs count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence


def stretched(milestones: Sequence[float], published_epochs: int, epochs: int) -> tuple[float, ...]:
    """Milestones of a run of ``published_epochs``, at the same share of a run of ``epochs``."""
    return tuple(milestone * epochs / published_epochs for milestone in milestones)


def passed_after(milestones: Sequence[float], epoch: int) -> int:
    """How many milestones e lie before epoch ``epoch`` (from 0): those with epoch + 1 > e."""
    return sum(epoch + 1 > milestone for milestone in milestones)


def linear_decay(top: float, end: float, epoch: int) -> float:
    """``top`` in epoch 0 falling to 0 at epoch ``end``, then 0."""
    return max(top * (1 - epoch / end), 0.0)
