"""Between Ray Tune and a sweep: which trial comes next, which may be stopped, what came of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from lasat_ray.tune.storage import TRIALS, Store
from lasat_ray.tune.trainable import OUTCOME, TrialResources
from lasat_ray.tune.trial import Outcome, Trial, Trials

Heard = Callable[[Trial, Outcome], None]
"""Hears how a trial stands: when it is handed out, after every validation, and with its final status."""

ASHA_FACTOR = 3


class TuneSearcher(Searcher):
    """Hands Tune the trials of a sweep in order and keeps what came of them.

    ``outcomes``: trials that earlier processes finished or stopped; they are not run again.
    """

    def __init__(
        self,
        sweep: Trials,
        outcomes: dict[str, Outcome],
        *,
        place: TrialResources,
        concurrent: int,
        heard: Heard,
    ) -> None:
        super().__init__()
        self.outcomes = dict(outcomes)
        self.running: dict[str, Trial] = {}
        self._sweep, self._place, self._concurrent, self._heard = sweep, place, concurrent, heard
        self._so_far: dict[str, Outcome] = {}
        self._queue: list[Trial] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes a copy of its searcher that nothing here ever reads

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """The run folders are the state."""

    def suggest(self, trial_id: str) -> Any:
        """The next trial as Tune's configuration; None: wait; FINISHED: there will be no more."""
        if len(self.running) >= self._concurrent:
            return None
        if self._queue is None:  # the sweep is asked again only when there is news
            busy = {trial.name for trial in self.running.values()}
            trials = self._sweep(self.outcomes)
            self._queue = [t for t in trials if t.name not in self.outcomes and t.name not in busy]
        if not self._queue:
            return None if self.running else Searcher.FINISHED
        trial = self.running[trial_id] = self._queue.pop(0)
        self._heard(trial, Outcome(status="running"))
        return {"trial": json.dumps(trial.to_json()), "place": asdict(self._place)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "so_far" in result and trial_id in self.running:
            self._so_far[trial_id] = Outcome.from_json(json.loads(result["so_far"]))
            self._heard(self.running[trial_id], self._so_far[trial_id])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial = self.running.pop(trial_id, None)
        if trial is None:
            return
        so_far = self._so_far.pop(trial_id, Outcome(status="running"))
        if result and "outcome" in result:
            outcome = Outcome.from_json(json.loads(result["outcome"]))
        elif error:
            told = f"its process was lost {self._place.max_failures + 1} times"
            outcome = replace(so_far, status="failed", error=told)
        else:
            outcome = replace(so_far, status="stopped")
            Store(self._place.out).write_json(f"{TRIALS}/{trial.name}/{OUTCOME}", outcome.to_json())
        self.outcomes[trial.name] = outcome
        self._queue = None
        self._heard(trial, outcome)


class Asha(ASHAScheduler):
    """Tune's ASHA on validation robustness, but no trial that is timed, goes on from another, or has
    told its outcome is ever stopped. ``known`` trials of earlier processes fill the rungs first."""

    def __init__(self, epochs: int, known: dict[str, Outcome]) -> None:
        grace = max(1, epochs // ASHA_FACTOR**2)
        super().__init__(
            time_attr="epoch",
            metric="val_robust_acc",
            mode="max",
            max_t=epochs,
            grace_period=grace,
            reduction_factor=ASHA_FACTOR,
        )
        for name, outcome in known.items():
            for epoch, _, robust in outcome.curve:
                self._brackets[0].on_result(SimpleNamespace(trial_id=name), epoch, robust)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        told = json.loads(trial.config["trial"])
        if "outcome" in result or told["timed"] or told["parent"] or told["stop_epoch"]:
            return TrialScheduler.CONTINUE
        # A trial at its last epoch has nothing left to save.
        if result.get("epoch") == told["config"]["epochs"]:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)


class OnError(Callback):
    """Nothing of Tune's is printed; this hears of trials whose process was lost and is started again."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        self._heard = heard

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._heard(Trial.from_json(json.loads(trial.config["trial"])).name)
