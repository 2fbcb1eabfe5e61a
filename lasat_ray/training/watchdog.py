"""Turns a process that hangs into one that ends, so that whoever watches it can start it again.

The timer is a thread of the C library's (``faulthandler``), which needs no interpreter lock: it fires
too while an extension holds that lock. It writes where every thread stands to stderr first.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Ends the process with status 1 unless ``beat`` is called every ``timeout_s`` seconds; None: never."""

    timeout_s: float | None = None

    def beat(self) -> None:
        """One more sign of life; about 50 microseconds."""
        if self.timeout_s is not None and sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(self.timeout_s, exit=True, file=sys.__stderr__)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for the time of the block."""
        self.beat()
        try:
            yield
        finally:
            if self.timeout_s is not None:
                faulthandler.cancel_dump_traceback_later()
