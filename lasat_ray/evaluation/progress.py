"""Which jobs are done, which may start, and what is left: the same book for every way of running them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lasat_ray.evaluation.part import Part, PartStore
from lasat_ray.evaluation.spec import Job, Suite

JobListener = Callable[[Job, Part, bool], None]
"""Hears every finished job: (job, part, True if an earlier process had done it)."""


class JobQueue:
    """Hands out jobs and keeps their parts; finished parts are read from the store at once."""

    def __init__(self, suite: Suite, store: PartStore | None, listener: JobListener | None = None) -> None:
        self.suite, self._store, self._listener = suite, store, listener
        self.parts: dict[Job, Part] = {}
        self._jobs = list(suite.jobs())
        self._waiting: list[Job] = []
        for job in self._jobs:
            part = store.load(job) if store else None
            if part is None:
                self._waiting.append(job)
            else:
                self._enter(job, part, True)

    @property
    def finished(self) -> bool:
        return len(self.parts) == len(self._jobs)

    @property
    def unfinished(self) -> int:
        """Jobs without a result, running ones included."""
        return len(self._jobs) - len(self.parts)

    def take(self) -> tuple[Job, Tensor] | None:
        """The next job that may start, with its images still alive [M] bool; None if all must wait."""
        for place, job in enumerate(self._waiting):
            before = self._before(job)
            if all(earlier in self.parts for earlier in before):
                del self._waiting[place]
                return job, self._alive(job, before)
        return None

    def put_back(self, job: Job) -> None:
        """A job whose worker was lost is the next one again."""
        self._waiting.insert(0, job)

    def done(self, job: Job, part: Part) -> None:
        """Keep a result: on disk first, so that whoever was told of it finds it again."""
        if self._store:
            self._store.save(job, part)
        self._enter(job, part, False)

    def _enter(self, job: Job, part: Part, known: bool) -> None:
        self.parts[job] = part
        if self._listener:
            self._listener(job, part, known)

    def _before(self, job: Job) -> list[Job]:
        """The jobs whose survivors this one attacks: the same chunk under the attacks before it."""
        if not self.suite.worst_case or job.spec.sanity:
            return []
        chunk = [other for other in self._jobs if other.chunk == job.chunk and not other.spec.sanity]
        return chunk[: chunk.index(job)]

    def _alive(self, job: Job, before: list[Job]) -> Tensor:
        alive = torch.ones(job.last - job.first, dtype=torch.bool)
        for earlier in before:
            alive &= self.parts[earlier].robust
        return alive
