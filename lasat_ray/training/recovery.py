"""Holds each round back until its numbers are known to be finite, and mends what is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lasat_ray.errors import UserError
from lasat_ray.runs.numerics import Finding, Votes, copied, locate
from lasat_ray.types import RoundReport

if TYPE_CHECKING:
    from lasat_ray.training.loop import Trainer

State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Played:
    report: RoundReport
    votes: Votes
    before: State | None
    """Both nets before the round; only where rounds may be skipped."""


class Recovery:
    """Rounds go to the recorder in order, each once it is known to be sound.

    ``lag``: how many rounds may be on their way. On a GPU one: what a round found is read after the
    next was begun, so that the GPU never waits for it; a bad round costs the one after it too.
    ``faults``: rounds that were mended. Every decision is the same on every worker.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.policy = trainer.config.numerics
        self.lag = 1 if trainer.place.device.type == "cuda" else 0
        self.faults = 0
        self.stop_asked = False
        self._before: State | None = None
        self._played: list[_Played] = []

    def keep(self) -> None:
        """Called before a round: remember what it may spoil."""
        if self.policy.on_nan == "skip":
            trainer = self.trainer
            state = {"target": trainer.env.target.state_dict(), "learner": trainer.learner.state_dict()}
            self._before = copied(state)

    def add(self, report: RoundReport) -> None:
        """Called after a round."""
        place, recorder = self.trainer.place, self.trainer.recorder
        asked, failed = place.stop_asked(), recorder.failure is not None
        votes = Votes(report, stop=asked, failed=failed, world=place.world)
        self._played.append(_Played(report, votes, self._before))

    def settle(self, *, wait: bool) -> None:
        """Hand on what is known (with ``wait``: everything). A bad round ends the run or moves
        ``env.round`` to where it goes on; UserError where a worker could not write."""
        while len(self._played) > (0 if wait or self.stop_asked else self.lag):
            played = self._played.pop(0)
            bad, stop, failed = played.votes.read()
            self.stop_asked |= stop
            if failed:
                raise self.trainer.recorder.failure or UserError(
                    "the first worker could not write its records"
                )
            if bad:
                self._played.clear()
                return self._mend(played)
            self.trainer.recorder.add(played.report)

    def _mend(self, played: _Played) -> None:
        trainer, finding = self.trainer, locate(played.report, self.trainer.place.world)
        trainer.recorder.flush()
        self.faults += 1
        given_up = self.faults > self.policy.max_faults
        if self.policy.on_nan == "stop" or given_up:
            self._record(finding, "stop", "the run ends")
            raise UserError(self._last_words(finding, given_up))
        if self.policy.on_nan == "skip":
            assert played.before is not None
            trainer.env.target.load_state_dict(played.before["target"])
            trainer.learner.load_state_dict(played.before["learner"])
            trainer.env.seek(finding.round + 1)
            return self._record(finding, "skip", "the batch is left out")
        self._roll_back(finding)

    def _roll_back(self, finding: Finding) -> None:
        trainer, target = self.trainer, self.trainer.env.target
        trainer.place.world.barrier()
        state, _ = trainer.place.folder.load_last()
        assert state is not None, "a run that rolls back begins with a checkpoint"
        trainer.recorder.rewind(state["metrics_offset"], state["round"])
        trainer.load_state_dict(state)
        target.rate_factor *= self.policy.rollback_factor
        factor = f"{target.rate_factor:g} times the learning rate"
        self._record(finding, "rollback", f"back to round {state['round']} with {factor}")
        trainer.save()  # a run that dies from here on keeps the smaller rate

    def _record(self, finding: Finding, action: str, what: str) -> None:
        told = {"kind": "nonfinite", "round": finding.round, "action": action, "fields": finding.fields}
        self.trainer.recorder.write({**told, "told": f"{finding}; {what}"})

    def _last_words(self, finding: Finding, given_up: bool) -> str:
        if given_up:
            remedy = f"after {self.policy.max_faults} such rounds; lower --optim.lr and --policy.lr"
        else:
            remedy = "lower --optim.lr, or start again with --numerics.on-nan skip or rollback"
        return f"{finding}; the run ends {remedy}; checkpoints of earlier rounds are whole"
