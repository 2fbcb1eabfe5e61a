"""A command that is refused leaves nothing behind, and takes nothing that was not its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from lasat_ray.errors import UserError
from lasat_ray.errors.interrupts import undisturbed
from lasat_ray.runs.lock import InUse, locked
from lasat_ray.runs.same import OtherSettings

_OURS = (
    *("config.json", "manifest.json", "metrics.jsonl", "probe.safetensors", "trackers.json", "summary.json"),
    "data.npz",
    *(".run.lock", ".writer.lock", ".stop", ".upload.json", ".*.tmp"),
    *("newest.safetensors", "last.safetensors", "previous.safetensors", "best.safetensors"),
    "events.out.tfevents.*",
)
"""What a run writes; a name that is not here is somebody else's file."""
_OUR_FOLDERS = ("checkpoints", "tensorboard", "compare-*")


@contextmanager
def undone_if_refused(path: Path) -> Iterator[None]:
    """Where the block fails before a round of the run folder ``path`` was recorded, what it made is removed.

    File by file: what was there before stays, and so does what is not a run's. Nothing is removed once a
    round stands in the records, nor while another process holds the folder.
    """
    before = {path, *path.rglob("*")} if path.exists() else set()
    new_parents = [folder for folder in path.absolute().parents if not folder.exists()]
    try:
        yield
    except (InUse, OtherSettings):  # it is another run's
        raise
    except BaseException:
        with undisturbed():
            if path.is_dir() and not has_rounds(path):
                _remove_new(path, before)
            for folder in new_parents:
                with suppress(OSError):
                    folder.rmdir()
        raise


def has_rounds(folder: Path) -> bool:
    """Whether a round stands in the records of a run folder; True where they cannot be read."""
    try:
        with open(folder / "metrics.jsonl", "rb") as lines:
            return any(b'"kind": "round"' in line for line in lines)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _remove_new(path: Path, before: set[Path]) -> None:
    """Files and folders of ours below ``path`` that are not in ``before``; none where another process is."""
    locks = [path / ".run.lock", path / ".writer.lock"]
    try:
        with locked(locks[0]), locked(locks[1], patience_s=10.0):  # a worker may have a moment to live
            if has_rounds(path):
                return
            remove_ours(path, {*before, *locks})
            for lock in locks:
                if lock not in before:
                    lock.unlink(missing_ok=True)
    except InUse:
        return
    except (UserError, OSError):
        if path in before:
            return
        remove_ours(path, before)  # no inode is left for a lock, in a folder that was made just now
    if path not in before:
        with suppress(OSError):
            path.rmdir()


def remove_ours(folder: Path, kept: Collection[Path]) -> None:
    """Files and folders of a run below ``folder`` that are not ``kept``; what is no run's stays."""
    for inner in sorted(folder.rglob("*"), reverse=True):  # what lies in a folder comes before it
        if inner not in kept:
            _remove(inner)


def _remove(path: Path) -> None:
    with suppress(OSError):  # a folder in which something is left stays
        folder = path.is_dir() and not path.is_symlink()
        if any(fnmatch(path.name, name) for name in (_OUR_FOLDERS if folder else _OURS)):
            path.rmdir() if folder else path.unlink()
