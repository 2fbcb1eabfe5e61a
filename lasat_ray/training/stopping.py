"""SIGTERM, a machine's notice that it is taken away, and SIGHUP: finish the round, save, end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lasat_ray.errors import UserError

StopAsked = Callable[[], bool]


class Stopped(UserError):
    """The run saved itself and ended because it was asked to; 143 is what a shell gives SIGTERM."""

    status = 128 + signal.SIGTERM


def stopped(round: int, folder: object) -> Stopped:
    """The one line of a run that ended early in good order."""
    return Stopped(f"stopped by SIGTERM with round {round} saved; continue with --resume {folder}")


@contextmanager
def sigterm_asks(ask: Callable[[], Any]) -> Iterator[None]:
    """Inside the block the first SIGTERM or SIGHUP calls ``ask`` once; a second does what it did before.

    Signals belong to the main thread: in any other the block changes nothing. SIGHUP stays ignored where
    it was, as under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]

    def handler(signum: int, frame: Any) -> None:
        signal.signal(signum, before[signal.Signals(signum)])
        ask()

    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
