"""What a command prints may fail to arrive; its work must not."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console

from lasat_ray.errors import Fallback


def make_console(*, stderr: bool = False) -> Console:
    """The console of every command: paths and class names are shown as they are, never read as markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


class Unfailing:
    """A text stream whose failures lose text and nothing else; ``failure`` is the first of them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        except ValueError:  # closed under our hands
            pass
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)
        except ValueError:
            pass

    def _give_up(self, error: OSError) -> None:
        """Nobody hears us: the rest goes to the null device, what Python flushes at its end too."""
        self.failure = self.failure or error
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextmanager
def unfailing_output() -> Iterator[Unfailing]:
    """stdout and stderr that never raise, for the time of the block; gives stdout.

    A letter that their encoding lacks is written as its number. A stream that was closed is the null
    device, since the next file to be opened would have its number, and get what is printed.
    """
    for number in (0, 1, 2):
        _open_if_closed(number)
    before = sys.stdout, sys.stderr
    kept = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 - it lives as long as Python
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")
        kept.append(Unfailing(stream))
        setattr(sys, name, kept[-1])
    try:
        yield kept[0]
    finally:
        for stream in kept:
            stream.flush()
        _tell_lost(kept[0].failure)
        sys.stdout, sys.stderr = before


def _open_if_closed(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        with suppress(OSError):
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)


def _tell_lost(failure: OSError | None) -> None:
    if failure is not None and failure.errno != errno.EPIPE:  # the reader of a pipe has what it wanted
        sys.stderr.write(f"lasat-ray: warning: stdout cannot be written ({failure.strerror})\n")
        sys.stderr.flush()


@contextmanager
def fallbacks_in_one_line() -> Iterator[None]:
    """``lasat-ray: warning: ...`` for our own Fallback, without the place in the source; other warnings as
    Python shows them."""
    before = warnings.formatwarning

    def shown(message: Any, category: type[Warning], *where: Any, **line: Any) -> str:
        if issubclass(category, Fallback):
            return f"lasat-ray: warning: {message}\n"
        return before(message, category, *where, **line)

    warnings.formatwarning = shown
    try:
        yield
    finally:
        warnings.formatwarning = before


def printed_status() -> int:
    """The exit status of a command that only prints: 1 where that did not arrive."""
    sys.stdout.flush()
    return int(getattr(sys.stdout, "failure", None) is not None)
