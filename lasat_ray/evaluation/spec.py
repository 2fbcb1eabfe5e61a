"""What an evaluation is asked for: attacks with their budgets, images, seed. All that decides numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

NORMS = ("linf", "l2")


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackSpec:
    """One attack, completely: two equal specs on the same net and images give the same flags.

    ``eps`` and ``step_size`` in [0,1] pixels, ``norm`` linf or l2; ``limit``: only the first so many images;
    ``queries`` per image bound the square attack; ``sanity``: part of the sanity check; ``code``: hash
    of the file that an attack from outside stands in.
    """

    name: str
    family: str
    norm: str
    eps: float
    step_size: float = 0.0
    num_steps: int = 0
    restarts: int = 1
    stop_early: bool = False
    queries: int = 5000
    limit: int | None = None
    sanity: bool = False
    code: str = ""

    def key(self) -> str:
        """A short name of everything above."""
        return digest(asdict(self))[:12]


@dataclass(frozen=True, slots=True)
class Job:
    """One attack on one chunk: rows ``first`` to ``last`` - 1 of the test images."""

    spec: AttackSpec
    chunk: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """An evaluation: ``attacks`` in order, on the first ``n`` images in chunks of ``chunk_size``.

    ``worst_case``: each attack meets only the images that those before it left. ``sample``: the rows, in
    turn, that attacks with a limit are put to; empty stands for the first.
    """

    attacks: tuple[AttackSpec, ...]
    n: int
    chunk_size: int
    seed: int
    worst_case: bool = False
    save_images: bool = False
    sample: tuple[int, ...] = ()

    def rows(self, job: Job) -> range | tuple[int, ...]:
        """The test images of a job."""
        limited = job.spec.limit is not None and self.sample
        return self.sample[job.first : job.last] if limited else range(job.first, job.last)

    def jobs(self) -> Iterator[Job]:
        """Every job, chunk by chunk, so that a chunk's images are at hand for all its attacks."""
        for chunk, first in enumerate(range(0, self.n, self.chunk_size)):
            for spec in self.attacks:
                last = min(first + self.chunk_size, self.n, spec.limit or self.n)
                if first < last:
                    yield Job(spec, chunk, first, last)

    def main_attacks(self) -> list[AttackSpec]:
        """The attacks that were asked for, without those of the sanity check."""
        return [spec for spec in self.attacks if not spec.sanity]

    def common(self) -> dict[str, object]:
        """What decides every part's numbers beside its own attack."""
        order = [spec.key() for spec in self.main_attacks()] if self.worst_case else None
        return {
            "n": self.n,
            "chunk_size": self.chunk_size,
            "seed": self.seed,
            "order": order,
            "save_images": self.save_images,
            "sample": list(self.sample),
        }


def digest(content: object) -> str:
    """sha256 of anything JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
