"""Holds each round back until its numbers are known to be finite, and mends what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.errors import UserError
from lasat_ray.learners import Learner
from lasat_ray.runs.numerics import NonFiniteReport, RoundStatus, copied, locate
from lasat_ray.runs.recorder import Recorder
from lasat_ray.training.budget import Budget
from lasat_ray.training.context import RunContext
from lasat_ray.types import RoundReport

State = dict[str, Any]
POLICY_FIELDS = ("log-probability", "policy grad norm")
"""What a round watches of the strategy net, and its learning rate alone can mend."""


@dataclass(frozen=True, slots=True)
class _Played:
    report: RoundReport
    status: RoundStatus
    before: State | None
    """Both nets before the round; only where rounds may be skipped."""


class Recovery:
    """Rounds go to the recorder in order, each once it is known to be sound.

    ``lag``: how many rounds may be on their way. On a GPU one: what a round found is read after the
    next was begun, so that the GPU never waits for it; a bad round costs the one after it too.
    ``faults``: rounds that were mended. Every decision is the same on every worker.
    """

    def __init__(
        self,
        env: AttackStrategyVectorEnv,
        learner: Learner,
        context: RunContext,
        recorder: Recorder,
        *,
        restore: Callable[[State], None],
        save: Callable[[], None],
        budget: Budget | None = None,
    ):
        self.env, self.learner = env, learner
        self.context, self.recorder = context, recorder
        self.restore, self.save = restore, save
        self.budget = budget
        self.policy = env.config.numerics
        self.lag = 1 if context.device.type == "cuda" else 0
        self.faults = 0
        self.stop_asked = False
        self._before: State | None = None
        self._played: list[_Played] = []

    def keep(self) -> None:
        """Called before a round: remember what it may spoil."""
        if self.policy.on_nan == "skip":
            state = {"target": self.env.target.state_dict(), "learner": self.learner.state_dict()}
            if self.env.price is not None:
                state["price"] = self.env.price.state_dict()
            self._before = copied(state)

    def add(self, report: RoundReport, seconds: float) -> None:
        """Called after a round that took so many seconds."""
        asked, failed = self.context.stop_asked(), self.recorder.failure is not None
        group = self.context.group
        figures = None if self.budget is None else self.budget.figures(report, seconds, group)
        status = RoundStatus(report, stop=asked, failed=failed, group=group, figures=figures)
        self._played.append(_Played(report, status, self._before))

    def drain(self, *, wait: bool) -> None:
        """Hand on what is known (with ``wait``: everything). A bad round ends the run or moves
        ``env.round`` to where it goes on; UserError where a worker could not write."""
        while len(self._played) > (0 if wait or self.stop_asked else self.lag):
            played = self._played.pop(0)
            bad, stop, failed = played.status.read()
            self.stop_asked |= stop
            if failed:
                raise self.recorder.failure or UserError("the first worker could not write its records")
            if self.budget is not None:
                self.budget.add(played.report, played.status.read_figures())
            if bad:
                self._played.clear()
                return self._recover(played)
            self.recorder.add(played.report)

    def _recover(self, played: _Played) -> None:
        found = locate(played.report, self.context.group)
        self.recorder.flush()
        self.faults += 1
        given_up = self.faults > self.policy.max_faults
        if self.policy.on_nan == "stop" or given_up:
            self._record(found, "stop", "the run ends")
            raise UserError(self._last_words(found, given_up))
        if self.policy.on_nan == "skip":
            assert played.before is not None
            self.env.target.load_state_dict(played.before["target"])
            self.learner.load_state_dict(played.before["learner"])
            if self.env.price is not None:
                self.env.price.load_state_dict(played.before["price"], self.context.device)
            self.env.seek(found.round + 1)
            return self._record(found, "skip", "the batch is left out")
        self._roll_back(found)

    def _roll_back(self, found: NonFiniteReport) -> None:
        target = self.env.target
        self.context.group.barrier()
        state, _ = self.context.folder.load_last()
        assert state is not None, "a run that rolls back begins with a checkpoint"
        self.recorder.rewind(state["metrics_offset"], state["round"])
        self.restore(state)
        target.rate_factor *= self.policy.rollback_factor
        factor = f"{target.rate_factor:g} times the learning rate"
        self._record(found, "rollback", f"back to round {state['round']} with {factor}")
        self.save()  # a run that dies from here on keeps the smaller rate

    def _record(self, found: NonFiniteReport, action: str, what: str) -> None:
        told = {"kind": "nonfinite", "round": found.round, "action": action, "fields": found.fields}
        self.recorder.write({**told, "told": f"{found}; {what}"})

    def _last_words(self, found: NonFiniteReport, given_up: bool) -> str:
        # Fields stand in the order of a round: what went wrong first is the side that ran away.
        first = next(iter(found.fields), "")
        rate = "--policy.lr" if first in POLICY_FIELDS else "--optim.lr"
        if given_up:
            remedy = f" after {self.policy.max_faults} such rounds; lower {rate}"
        else:
            remedy = f"; lower {rate}, or start again with --numerics.on-nan skip or rollback"
        kept = "checkpoints of earlier rounds are whole"
        if not any(self.context.folder.checkpoints.glob("*.safetensors")):
            kept = f"no checkpoint was due yet, {self.context.folder.metrics} keeps the records"
        return f"{found}; the run ends{remedy}; {kept}"
