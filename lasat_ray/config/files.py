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


def place_of_results(run: Path, option: str = "--out") -> Path:
    """Where what is made from a run lies when nobody names a place: in ``run``, or, where that cannot be
    written (an archive, a colleague's), in RUN-results of the present folder. UsageError, before anything is
    computed, where neither can."""
    if _can_be_written(run):
        return run
    beside = Path(f"{run.resolve().name}-results")
    if _can_be_written(beside):
        return beside
    raise refusal(option, f"'{run}'", "cannot be written, nor the present folder", f"name one with {option}")


def _can_be_written(folder: Path) -> bool:
    """Whether files can be made there, or the folder itself; nothing is made. False on a read-only disk,
    for its owner too."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
