"""One writer a folder: advisory locks that the kernel drops with the process that holds them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lasat_ray.errors import REMEDIES, UserError

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


class InUse(UserError):
    """Somebody else holds the lock; nothing in the folder may be touched."""


@contextmanager
def locked(path: Path, *, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path`` for the time of the block.

    InUse, naming folder, process and machine, when another process holds it for ``patience_s``
    seconds. The file stays, since a name that comes and goes could be locked twice; the lock itself
    ends with its process, however that ends.
    """
    try:
        # Not through a link, which a folder from elsewhere may hold.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+")
    except OSError as error:
        usual = "make the folder writable"
        remedy = usual if error.errno == errno.EACCES else REMEDIES.get(error.errno or 0, usual)
        raise UserError(f"{path}: cannot be opened ({error.strerror}); {remedy}") from error
    with file:
        _acquire(file, path, patience_s)
        # Only now: what a refused process reads here is who holds the lock.
        _sign(file.fileno())
        yield


def _sign(number: int) -> None:
    """Who holds the lock; on a full disk the lock holds without a name, and what was begun can be removed."""
    with suppress(OSError):
        os.ftruncate(number, 0)
        os.pwrite(number, (json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n").encode(), 0)


def _acquire(file: Any, path: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _TAKEN:
                remedy = "choose a file system with locks for --out"
                raise UserError(f"{path}: cannot be locked ({error.strerror}); {remedy}") from error
        if time.monotonic() >= deadline:
            remedy = "wait for it, end it, or give another --out"
            raise InUse(f"{path.parent}: another run is writing here ({_holder(path)}); {remedy}")
        time.sleep(0.1)


def _holder(path: Path) -> str:
    """Who wrote their name into the lock file; it may be half written."""
    try:
        told = json.loads(path.read_text())
        return f"process {told['pid']} on {told['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has just begun"
