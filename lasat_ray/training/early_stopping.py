"""Ends a run early where more training only overfits."""

from __future__ import annotations

from typing import Any

from lasat_ray.config import TrainConfig
from lasat_ray.update.price import Price


class EarlyStopping:
    """Counts validated epochs without progress; plain numbers, the same on every worker.

    ``validation``: the robust accuracy on the validation images has no new best. ``gain``: the running mean
    gain of the rate objective, what an update does to held-out images, is 0 or less: robust overfitting
    has begun (Rice et al. 2020 describe it), and no validation was needed to see it.
    """

    def __init__(self, config: TrainConfig):
        self.on, self.patience = config.stop_on, config.stop_patience
        self.waited = 0
        self.best = -1.0

    @property
    def is_over(self) -> bool:
        """Whether the last validation ended the run."""
        return self.on != "none" and self.waited >= self.patience

    def update(self, robust: float | None, gain: float | None) -> None:
        """Take in a validated epoch: its robust accuracy in [0,1], and the mean gain, where there are any."""
        if self.on == "validation" and robust is not None:
            self.waited = 0 if robust > self.best else self.waited + 1
            self.best = max(self.best, robust)
        if self.on == "gain" and gain is not None:
            self.waited = 0 if gain > 0 else self.waited + 1

    def hear(self, record: dict[str, Any], price: Price | None) -> dict[str, Any]:
        """``update`` by the record of a validated epoch and the price; returns what is to be recorded."""
        if self.on == "none":
            return {}
        robust = next((v for k, v in record.items() if k.startswith("val_robust_acc")), None)
        self.update(robust, None if price is None or price.means is None else price.means[0].item())
        return {"epochs_without_progress": self.waited}

    def summary(self, done: float) -> dict[str, Any]:
        """What summary.json says of a run that ended after the share ``done``; {} where it ran through."""
        return {"stopped_on": self.on, "budget_left": 1 - done} if self.is_over else {}

    def state_dict(self) -> dict[str, Any]:
        """The count and the best accuracy so far."""
        return {"waited": self.waited, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.waited, self.best = state["waited"], state["best"]
