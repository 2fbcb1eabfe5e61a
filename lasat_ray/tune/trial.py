"""A trial and what came of it: plain data, the same on the driver, in the trial's process and on disk."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import config_from_json, config_to_json

Status = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One training run of a sweep. ``row``: the line of the table it belongs to.

    ``timed``: its seconds are a result, so nothing may stop it early. ``stop_epoch``: train through
    this epoch only; ``parent``: the name of a trial whose last checkpoint it goes on from, under its
    own settings (population-based training). ``info``: what a search remembers about it.
    """

    row: str
    config: TrainConfig
    timed: bool = False
    parent: str | None = None
    stop_epoch: int | None = None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Folder name: the row, the seed, and a hash of all that decides what is computed."""
        what = [config_to_json(self.config), self.parent, self.stop_epoch]
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:10]
        slug = re.sub(r"[^a-z0-9.]+", "-", self.row.lower()).strip("-")
        return f"{slug}-s{self.config.seed}-{digest}"

    def to_json(self) -> dict[str, Any]:
        return {
            "row": self.row,
            "config": config_to_json(self.config),
            "timed": self.timed,
            "parent": self.parent,
            "stop_epoch": self.stop_epoch,
            "info": self.info,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trial:
        return cls(**{**data, "config": config_from_json(data["config"], "trial")})


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one trial did.

    ``curve``: [epoch, validation clean accuracy, validation robust accuracy] of every validated epoch;
    ``summary``: the trainer's test figures, None before the end. ``target_passes`` and
    ``strategy_passes``: images passed through either net, backward passes included (cost.py).
    ``chosen``: strategy field -> [mean in the first epoch, mean in the last]. ``place``: where it ran.
    """

    status: Status
    curve: tuple[tuple[int, float, float], ...] = ()
    summary: dict[str, Any] | None = None
    train_seconds: float = 0.0
    target_passes: float = 0.0
    strategy_passes: float = 0.0
    updates: int = 0
    chosen: dict[str, tuple[float, float]] = field(default_factory=dict)
    place: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def passes(self) -> float:
        """Both nets' passes; a pass of the strategy net counts like one of the target net."""
        return self.target_passes + self.strategy_passes

    @property
    def best(self) -> tuple[float, float] | None:
        """(clean, robust) on validation of the epoch whose net is kept: most robust, the later of equals."""
        if not self.curve:
            return None
        _, clean, robust = max(self.curve, key=lambda point: (point[2], point[0]))
        return clean, robust

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        curve = tuple((int(epoch), clean, robust) for epoch, clean, robust in data["curve"])
        chosen = {name: (first, last) for name, (first, last) in data["chosen"].items()}
        return cls(**{**data, "curve": curve, "chosen": chosen})


Outcomes = Mapping[str, Outcome]
"""Trial name -> what came of it."""

Trials = Callable[[Outcomes], list[Trial]]
"""A sweep: every trial that is determined by the outcomes so far, those with an outcome included.

A pure function. So a sweep that was killed is repeated by asking again, and a search proposes the
same candidates however many trials run at a time.
"""


def all_trials(sweep: Trials, stand_in: Callable[[Trial], Outcome]) -> list[Trial]:
    """Every trial of a sweep if each came out as ``stand_in`` says: what a plan can know beforehand."""
    outcomes: dict[str, Outcome] = {}
    while True:
        trials = sweep(outcomes)
        new = [trial for trial in trials if trial.name not in outcomes]
        if not new:
            return trials
        outcomes |= {trial.name: stand_in(trial) for trial in new}
