"""Who listens to a run while it trains: objects with methods that are called with its records.

The progress display and the trackers of --log are such objects, and so is whatever a user names as
``module:Class`` or hands to ``lasat_ray.train``. They live where the command runs, on whatever workers train.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lasat_ray.config import TrainConfig
from lasat_ray.errors import UsageError, UserError
from lasat_ray.plugins import blaming, load_plugin

KINDS = {"round": "on_round", "epoch": "on_epoch", "checkpoint": "on_checkpoint", "final": "on_end"}
"""Kind of a record -> the method that is called with it."""
HOOKS = ("on_start", *KINDS.values(), "on_record")


class Callback:
    """What a callback may have; a class of one's own needs not inherit it, nor have them all.

    ``record``: a dict of JSON types as in metrics.jsonl, with ``kind`` and ``round``; a copy, so that nothing
    one does to it changes the run. Rounds come in blocks, some twenty an epoch. What Ray workers had to play
    again after a loss is told again.
    """

    def on_start(self, folder: Path, config: TrainConfig) -> None:
        """Before the first round of a run, or of what is left of it."""

    def on_round(self, record: dict[str, Any]) -> None:
        """``loss``, ``reward``, means of the strategy, ... of one round."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        """``epoch``, ``val_clean_acc``, ``val_robust_acc_...``, ``lr``, ... once an epoch is over."""

    def on_checkpoint(self, record: dict[str, Any]) -> None:
        """``path`` of the checkpoint, which is whole on the disk, and the ``epoch`` that it ends (None within
        one)."""

    def on_end(self, record: dict[str, Any]) -> None:
        """The figures of summary.json; a run that fails or is stopped never gets there."""

    def on_record(self, record: dict[str, Any]) -> None:
        """Every record, of other kinds too (probe, data, warning), before the method of its own kind."""


class Callbacks:
    """Several callbacks as one listener, called in their order; each with its name for messages."""

    def __init__(self, members: Sequence[tuple[str, object]]) -> None:
        self.members = list(members)

    def __call__(self, record: dict[str, Any]) -> None:
        """A record of metrics.jsonl, or of a checkpoint; UserError in one line that names the callback and
        what it raised."""
        hook = KINDS.get(record["kind"])
        for name, member in self.members:
            for method in ("on_record", hook) if hook else ("on_record",):
                self._call(name, member, method, dict(record))

    def start(self, folder: Path, config: TrainConfig) -> None:
        """Tell all that a run begins; UserError as above."""
        for name, member in self.members:
            self._call(name, member, "on_start", folder, config)

    def _call(self, name: str, member: object, method: str, *given: Any) -> None:
        found: Callable[..., None] | None = getattr(member, method, None)
        if found is None:
            return
        told = f"callback {name}: {method} raised"
        with blaming(lambda raised: UserError(f"{told} {raised}; correct that code")):
            found(*given)


def find_callbacks(given: Sequence[object]) -> list[tuple[str, object]]:
    """(name, object) of callbacks that are given as ``module:Class``, as classes or as objects.

    UsageError in one line for a name that is not found, a class that cannot be made, a method ``on_...`` that
    is none of ``HOOKS`` and an object without any.
    """
    return [_found(item) for item in given]


def _found(item: object) -> tuple[str, object]:
    name = item if isinstance(item, str) else getattr(item, "__name__", type(item).__name__)
    made = load_plugin("callbacks", item) if isinstance(item, str) else item
    if isinstance(made, type):
        remedy = "a class takes no arguments, an object is given as it is"
        with blaming(lambda raised: UsageError(f"--callbacks: {name} cannot be made ({raised}); {remedy}")):
            made = made()
    methods = [method for method in dir(made) if method.startswith("on_")]
    for method in methods:
        if method not in HOOKS:
            close = difflib.get_close_matches(method, HOOKS, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"it may have {', '.join(HOOKS)}"
            raise UsageError(f"--callbacks: {name} has {method}, which nothing calls; {remedy}")
    if not methods:
        raise UsageError(f"--callbacks: {name} has none of {', '.join(HOOKS)}; give it one")
    return str(name), made


@contextmanager
def kept_error(stop: Callable[[], object]) -> Iterator[Callable[[Callable[[], None]], None]]:
    """For a thread that calls listeners: gives a function that runs them. What they raise is kept, ``stop``
    is called, nothing is run any more, and the error is raised at the end of the block."""
    errors: list[BaseException] = []

    def run(action: Callable[[], None]) -> None:
        if errors:
            return
        try:
            action()
        except BaseException as error:
            errors.append(error)
            stop()

    try:
        yield run
    finally:
        if errors:
            raise errors[0]
