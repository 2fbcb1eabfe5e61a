"""What a run may spend, in passes or seconds, and how much of it is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lasat_ray.config import TrainConfig
from lasat_ray.cost import counted_passes, record_steps, round_parts
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import RoundReport

_KEPT = 4  # rounds whose spending is remembered one by one


class Budget:
    """The amount that a run spends instead of a number of epochs; the same on every worker.

    Schedules follow the share that is spent. Round t knows what was spent through round t - 2, on every
    device: on a GPU the numbers of round t - 1 are still on their way when round t begins. The run ends
    with the round after which the amount is nearest to the limit, if the last rounds cost alike.

    ``num_images``: training images, those that are held out for the reward among them; a limit in passes
    is per such image, of both nets together.
    """

    def __init__(self, config: TrainConfig, num_images: int):
        self.config = config
        self.limit = 60 * config.budget_minutes or config.budget_passes * num_images
        self.by_time = config.budget_minutes > 0
        self._rounds, self._spent = [-1], [0.0]

    @property
    def spent(self) -> float:
        """All that is known to be spent, in passes or seconds."""
        return self._spent[-1]

    @property
    def share(self) -> float:
        """The part of the limit that is known to be spent."""
        return self.spent / self.limit

    def progress(self, round: int) -> float:
        """The share of the limit, in [0,1), that schedules of ``round`` go by."""
        return min(self._known(round - 2)[-1] / self.limit, 1 - 1e-9)

    def is_over(self, round: int) -> bool:
        """Whether the run ends before ``round``: half of another round like the last would be too much."""
        known = self._known(round - 2)
        last = known[-1] - known[-2] if len(known) > 1 else 0.0
        return known[-1] + 1.5 * last > self.limit

    def _known(self, round: int) -> list[float]:
        """What was spent through the last rounds up to ``round``, in order."""
        return [spent for r, spent in zip(self._rounds, self._spent, strict=True) if r <= max(round, -1)]

    def figures(self, report: RoundReport, seconds: float, group: ProcessGroup) -> Tensor:
        """What ``add`` has to know, [F] float64, still on the device; to be summed over workers."""
        if self.by_time:  # the first worker's clock counts
            return report.sums["num_steps"].new_full((1,), seconds * group.is_first)
        found = [report.sums[name].double() / report.global_size for name in _sums_of(report)]
        if "policy_epochs" in report.scalars:  # the same on every worker
            found.append(report.scalars["policy_epochs"].double() / group.size)
        return torch.stack(found)

    def add(self, report: RoundReport, figures: list[float]) -> None:
        """Count a round; ``figures``: those of ``figures``, summed over the workers."""
        names = ["seconds"] if self.by_time else [*_sums_of(report), "policy_epochs"][: len(figures)]
        record = dict(zip(names, figures, strict=True))
        self._rounds.append(report.round)
        self._spent.append(self.spent + (record["seconds"] if self.by_time else self._passes(report, record)))
        self._rounds, self._spent = self._rounds[-_KEPT:], self._spent[-_KEPT:]

    def _passes(self, report: RoundReport, record: dict[str, float]) -> float:
        parts = round_parts(
            self.config,
            steps=record_steps(record),
            paid="reward" in report.sums,
            epoch=int((report.progress or 0.0) * self.config.epochs),
            policy_epochs=record.get("policy_epochs"),
        )
        return self.config.batch_size * sum(parts.values())

    def state_dict(self) -> dict[str, Any]:
        """The last rounds and what was spent through each."""
        return {"rounds": list(self._rounds), "spent": list(self._spent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._rounds, self._spent = list(state["rounds"]), list(state["spent"])


def _sums_of(report: RoundReport) -> list[str]:
    return [name for name in ("num_steps", "steps_taken") if name in report.sums]


def budget_of(config: TrainConfig, num_images: int) -> Budget | None:
    """The budget of a run of ``num_images`` training images; None where epochs end it."""
    return Budget(config, num_images) if config.budget_passes or config.budget_minutes else None


def spent_passes(config: TrainConfig, metrics: Path, num_images: int) -> dict[str, float]:
    """What training cost by its records: ``passes`` of both nets, and per training image."""
    with open(metrics, encoding="utf-8") as lines:
        records = (json.loads(line) for line in lines)
        passes = sum(counted_passes(config, (record for record in records if record["kind"] == "round")))
    return {"passes": passes, "passes_per_image": passes / num_images}
