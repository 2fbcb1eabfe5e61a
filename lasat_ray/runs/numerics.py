"""Finds nan and infinity in the round where they appear, on every worker, and says whose they are.

A round leaves one number on the device: whether all that it watched was finite. It is summed over the
workers with what else they must agree on (a request to stop, a write that failed) and copied to the
host behind the round's own work, so that a GPU is never waited for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lasat_ray.process_group import HostCopy, ProcessGroup
from lasat_ray.types import RoundReport

_SHOWN = 8  # images named in an error; the record has all


@dataclass(frozen=True, slots=True)
class NonFiniteReport:
    """Where a round was not finite. ``fields``: name -> rows of the training set, empty for what
    belongs to no image, such as a gradient."""

    round: int
    fields: dict[str, list[int]]

    def __str__(self) -> str:
        # Fields come in the order in which a round computes them: what went wrong first is the cause.
        rows = next((found for found in self.fields.values() if found), [])
        shown = ", ".join(map(str, rows[:_SHOWN])) + (
            f" and {len(rows) - _SHOWN} more" * (len(rows) > _SHOWN)
        )
        images = f", first for training images {shown}" if rows else ""
        return f"round {self.round}: nan or infinity in {', '.join(self.fields)}{images}"


class RoundStatus:
    """What the workers agree on after a round: [not finite, asked to stop, could not write] counts, and
    the sums over workers of ``figures`` [F] float64."""

    def __init__(
        self,
        report: RoundReport,
        *,
        stop: bool,
        failed: bool,
        group: ProcessGroup,
        figures: Tensor | None = None,
    ):
        parts = [value.detach().reshape(-1).double() for value in report.watched.values()]
        finite = torch.cat(parts).isfinite().all()
        mine = torch.stack(
            [(~finite).double(), finite.new_full((), stop).double(), finite.new_full((), failed)]
        )
        self._votes = HostCopy(group.sum(mine if figures is None else torch.cat([mine, figures])))

    def read(self) -> tuple[bool, bool, bool]:
        """Whether any worker met nan, was asked to stop, could not write; waits for that round alone."""
        bad, stop, failed = (count > 0 for count in self._votes.read().tolist()[:3])
        return bad, stop, failed

    def read_figures(self) -> list[float]:
        """The sums of ``figures``; after ``read``."""
        found: list[float] = self._votes.read().tolist()[3:]
        return found


def locate(report: RoundReport, group: ProcessGroup) -> NonFiniteReport:
    """The fields and images of a round that were not finite, the same on every worker; collective."""
    assert report.index is not None
    rows = group.gather(report.index, report.global_size)
    fields: dict[str, list[int]] = {}
    for name, value in report.watched.items():
        bad = ~value.detach().isfinite()
        if bad.ndim:
            bad_N = group.gather(bad.long(), report.global_size).bool()
            if bad_N.any():
                fields[name] = rows[bad_N].tolist()
        elif group.sum(bad.long()).item():
            fields[name] = []
    return NonFiniteReport(report.round, fields)


def copied(tree: Any) -> Any:
    """A state with tensors of its own, on the device where they are."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(copied(value) for value in tree)
    return tree
