"""Ctrl-C, SIGTERM and SIGHUP end a command once; those that follow may not stop what the first set going."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lasat_ray.errors import UserError, told_elsewhere

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal, a scheduler and a terminal that is closed send."""
PATIENCE_S = 60.0
"""How long a command may clean up before a signal is heard again: Ray's processes take seconds to end."""

_DEFAULTS: dict[signal.Signals, Any] = dict.fromkeys(SIGNALS, signal.SIG_DFL)
_DEFAULTS[signal.SIGINT] = signal.default_int_handler
_heard: list[tuple[signal.Signals, float]] = []
_process: int | None = None  # of the command that hears; None where none does


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """For the time of the block the first of ``SIGNALS`` is a KeyboardInterrupt, and those of the next
    ``PATIENCE_S`` seconds change nothing: wherever one arrived, it would break off the clean-up that is under
    way.

    After a signal the handlers stay, for Python's own end. Where somebody else handles a signal, or it is
    ignored (``nohup``), nothing changes.
    """
    global _process
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in SIGNALS if signal.getsignal(number) in (_DEFAULTS[number], _end)]
    for number in taken:
        signal.signal(number, _end)
    _heard.clear()
    _process = os.getpid() if signal.getsignal(signal.SIGINT) in (_end, signal.SIG_IGN) else None
    try:
        yield
    finally:
        _process = None
        for number in [] if _heard else taken:
            signal.signal(number, _DEFAULTS[number])


def _end(number: int, frame: FrameType | None) -> None:
    if _process not in (None, os.getpid()):  # a child that was forked ends as it would without us
        signal.signal(number, _DEFAULTS[signal.Signals(number)])
        signal.raise_signal(number)
    elif not _heard or time.monotonic() - _heard[-1][1] > PATIENCE_S:
        hear(signal.Signals(number))


def hear(number: signal.Signals) -> None:
    """End the command as that signal does."""
    _heard.append((number, time.monotonic()))
    raise KeyboardInterrupt


@contextmanager
def signals_kept() -> Iterator[None]:
    """For a library that sets handlers of its own in the block, as Ray does: afterwards ours hold again, and
    the end by SIGTERM that its own asked for in between is the command's."""
    own = threading.current_thread() is threading.main_thread()
    ours = [number for number in SIGNALS if own and signal.getsignal(number) is _end]
    try:
        yield
    except SystemExit as stop:
        if signal.SIGTERM in ours and stop.code == signal.SIGTERM:
            hear(signal.SIGTERM)
        raise
    finally:
        for number in ours:
            signal.signal(number, _end)


def heard() -> signal.Signals | None:
    """The first signal that ended this command; None where none did."""
    return _heard[0][0] if _heard else None


def is_interrupt(error: BaseException) -> bool:
    """Whether this is the KeyboardInterrupt of a signal; a command that heard none has got it, or a kind of
    it, from code that raised it itself."""
    return type(error) is KeyboardInterrupt and (_process is None or bool(_heard))


def interrupted(then: str = "") -> UserError:
    """The one line of a command that a signal ended, and the status that a shell expects of it."""
    number = heard() or signal.SIGINT
    told = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
    return told_elsewhere(told + then, 128 + number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """For what a command does at its end and soon: no signal may stop it halfway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not set from Python
                signal.signal(number, handler)
