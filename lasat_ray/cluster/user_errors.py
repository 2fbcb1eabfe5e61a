"""A user's mistake (a damaged file, say) that one worker of a group meets while the others go on.

Were it returned there as a value, the others would wait for that worker in their next collective. Raised,
it makes Ray end them all at once, but then start a group that meets it again. So it is written down and
raised: the next group, or the driver where there is none, finds it. What all meet alike needs no new group.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lasat_ray.errors import UserError, described
from lasat_ray.runs.checkpoint import write_atomically

_TOGETHER_S = 5.0  # workers that meet a mistake alike do so within such a time


@dataclass(frozen=True, slots=True)
class UserErrorRelay:
    """What the workers of a run could not go on with, in a folder that all of them and the driver see."""

    folder: Path

    def first(self) -> dict[str, Any] | None:
        """``{"error": one line, "status": exit status}`` of the lowest rank that left one."""
        found = sorted(self.folder.glob("mistake-*.json"))
        return json.loads(found[0].read_text()) if found else None

    def met_again(self, rank: int, round: int, error: BaseException) -> UserError | None:
        """The error as the user's to mend where this worker met the very same in the same round before: a
        lost worker would not repeat itself. Else it is noted, and None."""
        told = {"round": round, "error": described(error)}
        note = self.folder / f"failure-{rank:06}.json"
        try:
            if note.is_file() and json.loads(note.read_text()) == told:
                return UserError(
                    f"round {round}: {told['error']}, again after a restart; mend what raises it"
                )
            self.folder.mkdir(exist_ok=True)
            write_atomically(note, json.dumps(told).encode())
        except (OSError, UserError):
            pass
        return None

    def publish(self, rank: int, size: int, error: UserError) -> dict[str, Any]:
        """The error as a value where all ``size`` workers leave one; else it is raised."""
        told = {"error": str(error), "status": error.status}
        try:
            self.folder.mkdir(exist_ok=True)
            write_atomically(self.folder / f"mistake-{rank:06}.json", json.dumps(told).encode())
        except (OSError, UserError):
            return told  # the disk is full: all workers hear of that together
        deadline = time.monotonic() + _TOGETHER_S
        while len(list(self.folder.glob("mistake-*.json"))) < size:
            if time.monotonic() > deadline:
                raise error
            time.sleep(0.05)
        return told
