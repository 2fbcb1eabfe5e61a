"""What a person sees of a running sweep: a live table on a terminal, a line a finished trial elsewhere."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lasat_ray.tune.plan import SweepPlan, spell_seconds, trial_passes
from lasat_ray.tune.trial import Outcome, Trial

_SHOWN = 24  # trials in the live table; the others are counted below it


class Board:
    """Shows how the trials stand: it hears of each one's start, epochs and end."""

    def __init__(self, console: Console, plan: SweepPlan, known: dict[str, Outcome]) -> None:
        self._console, self._plan = console, plan
        self._trials = {trial.name: trial for trial in plan.trials}
        self._outcomes = {name: outcome for name, outcome in known.items() if name in self._trials}
        self._known = set(self._outcomes)
        self._began = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Board:
        if self._console.is_terminal:
            self._live = Live(self.table(), console=self._console, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, trial: Trial, outcome: Outcome) -> None:
        """News of a trial."""
        self._trials[trial.name] = trial
        self._outcomes[trial.name] = outcome
        if self._live:
            self._live.update(self.table())
        elif outcome.status != "running":
            self._console.print(self._line(trial, outcome), highlight=False, markup=False, soft_wrap=True)

    def lost(self, name: str) -> None:
        """The process of a trial died and is started again."""
        told = f"{name}: its process was lost; it goes on from its last epoch"
        self._console.print(told, highlight=False, soft_wrap=True)

    def _line(self, trial: Trial, outcome: Outcome) -> str:
        ended = sum(o.status != "running" for o in self._outcomes.values())
        parts = [f"{trial.row}, seed {trial.config.seed}: {outcome.status}"]
        if outcome.curve:
            epoch, clean, robust = outcome.curve[-1]
            parts.append(f"epoch {epoch}, validation clean {100 * clean:.1f} %, robust {100 * robust:.1f} %")
            parts.append(f"{outcome.train_seconds:.0f} s")
        if outcome.error:
            parts.append(outcome.error)
        return f"{', '.join(parts)} ({ended} of {self._total()}, {self._left()} left)"

    def _total(self) -> int:
        return max(len(self._plan.trials), len(self._outcomes))

    def _left(self) -> str:
        """Time left by the pace of this process so far, weighted by the passes of each trial."""
        passes = {trial.name: trial_passes(trial, self._plan.probe) for trial in self._plan.trials}
        ended = {name for name, outcome in self._outcomes.items() if outcome.status != "running"}
        left = sum(value for name, value in passes.items() if name not in ended)
        done = sum(value for name, value in passes.items() if name in ended - self._known)
        if not done:
            return f"about {spell_seconds(self._plan.seconds)}"
        pace = (time.monotonic() - self._began) / done
        return f"about {spell_seconds(pace * left)}"

    def table(self) -> Group:
        """Running and ended trials, the newest last."""
        table = Table()
        for name in ("row", "seed", "status", "epoch", "clean", "robust", "seconds"):
            table.add_column(name, justify="left" if name in ("row", "status") else "right")
        for name in list(self._outcomes)[-_SHOWN:]:
            trial, outcome = self._trials[name], self._outcomes[name]
            epoch = outcome.curve[-1][0] if outcome.curve else trial.info.get("start_epoch", 0)
            status = Text(outcome.status, style="red" if outcome.status == "failed" else "")
            shown = (
                [f"{100 * share:.1f} %" for share in outcome.curve[-1][1:]] if outcome.curve else ["-"] * 2
            )
            figures = (*shown, f"{outcome.train_seconds:.0f}")
            epochs = f"{epoch}/{trial.stop_epoch or trial.config.epochs}"
            table.add_row(trial.row, str(trial.config.seed), status, epochs, *figures)
        ended = sum(outcome.status != "running" for outcome in self._outcomes.values())
        return Group(table, Text(f"{ended} of {self._total()} trials, {self._left()} left"))
