"""What is opened is an ordinary file: a pipe would keep its reader waiting, a device feed it for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lasat_ray.errors import UserError, refusal


def check_regular(path: str | Path) -> None:
    """UserError for a pipe, socket, device or folder, before it is opened. What is absent, or may not
    be looked at, is left to whoever opens it and can say what it was for."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is no ordinary file; put the file itself there, or name it")


def check_local(option: str, path: str | None) -> None:
    """UsageError for an address where a path of this machine is meant: ``s3://bucket`` would become a folder
    of that name."""
    if path is not None and "://" in path:
        what = "is an address, and files are written to this machine"
        raise refusal(option, f"'{path}'", what, "name a folder, perhaps of a mounted bucket")
