"""A run's figures as metrics of the Ray cluster: its dashboard and Prometheus show them beside Ray's own."""

from __future__ import annotations

import math
from typing import Any

from ray.util.metrics import Gauge

_SHOWN = ("round", "epoch", "loss", "reward", "img_per_second", "lr")
_PREFIX = "lasat_"


class Gauges:
    """Hears the records of a run; ``lasat_loss{run="..."}`` is the newest round's loss, and so on.

    Only numbers of rounds and epochs: ``round``, ``epoch``, ``loss``, ``reward``, ``img_per_second``, ``lr``
    and every ``val_...`` accuracy in [0,1]. A cluster without a metrics agent keeps none; the run goes on.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self._gauges: dict[str, Gauge] = {}

    def __call__(self, record: dict[str, Any]) -> None:
        if record["kind"] not in ("round", "epoch"):
            return
        for name, value in record.items():
            told = name in _SHOWN or name.startswith("val_")
            if told and type(value) in (int, float) and math.isfinite(value):
                self._gauge(name).set(value)

    def _gauge(self, name: str) -> Gauge:
        if name not in self._gauges:
            gauge = Gauge(f"{_PREFIX}{name}", description=f"{name} of a training run", tag_keys=("run",))
            gauge.set_default_tags({"run": self.run})
            self._gauges[name] = gauge
        return self._gauges[name]
