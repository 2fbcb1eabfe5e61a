"""Ctrl-C ends a command once; those that follow it may not stop what the first one set going."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_S = 60.0
"""How long a command may clean up before Ctrl-C is heard again: Ray's processes take seconds to end."""


@contextmanager
def interrupted_once() -> Iterator[None]:
    """For the time of the block the first SIGINT is a KeyboardInterrupt, and those of the next ``PATIENCE_S``
    seconds change nothing: wherever one arrived, it would break off the clean-up that is under way.

    After a SIGINT the handler stays, for Python's own end. Where somebody else handles the signal, or it is
    ignored (``nohup``), nothing changes.
    """
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    heard: list[float] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not heard or time.monotonic() - heard[-1] > PATIENCE_S:
            heard.append(time.monotonic())
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if not heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
