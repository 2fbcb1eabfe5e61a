"""A run at a URL, by --out or --resume: it works in a folder of this machine, which is uploaded as it grows.

Any continuation of a run computes the same bits, so the copy that is furthest along is the best one: the
local one while nobody else has uploaded since, else the newest upload.
"""

from __future__ import annotations

import hashlib
import json
import queue
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import read_json
from lasat_ray.config.urls import is_url
from lasat_ray.errors import UsageError, UserError, described, told_elsewhere
from lasat_ray.runs.uploads import OtherWriter, Upload, Uploads

KNOWN = ".upload.json"
"""In the local folder: the upload that it came from or last made; its number is -1 while it is fetched."""
_FETCHED = ".fetched"
_TRIES_S = (0.0, 1.0, 5.0)
"""Seconds before each try of the last upload; those before it are tried again after the next epoch."""


def local_path(place: str) -> Path:
    """The run folder that a path or URL means on this machine: of a URL ``runs/NAME-HASH``."""
    if not is_url(place):
        return Path(place)
    url = place.rstrip("/")
    name = re.sub(r"[^\w.-]", "_", url.rpartition("/")[2]).lstrip(".")
    return Path("runs") / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def brought(place: str, option: str, *, begun: bool = True) -> Path:
    """``local_path``, for a URL with the newest upload in it unless the folder is further along.

    UsageError where there is no run, unless it need not be ``begun``, and where the folder holds another one;
    UserError where the URL cannot be read, or holds no whole upload; InUse while a command trains here.
    """
    path = local_path(place)
    if not is_url(place):
        return path
    uploads = Uploads(place, option)
    there, known = uploads.newest(), _known(path)
    if known is None and there is not None and (path / "config.json").exists():
        raise _another(path, place)
    if there is None and known is not None and known.number < 0:
        raise UserError(f"{path}: was being fetched from '{place}', where nothing is left; remove it")
    if known is not None and there is not None and known.run != there.run:
        raise _another(path, place)
    if there is not None and (known is None or known.number < there.number):
        _fetch(uploads, there, path)
    if begun and not (path / "config.json").is_file():
        raise UsageError(f"{option}: '{place}' holds no run; name the URL that --out had")
    return path


def named_run(run: str) -> str:
    """What a command names as RUN, to be read: of a URL the local folder; what it writes there stays here."""
    return str(brought(run, "RUN")) if is_url(run) else run


@contextmanager
def mirrored(
    place: str | None, warn: Callable[[str], None], *, new: bool = False, bound_s: float = 1800.0
) -> Iterator[Mirror | None]:
    """For the time of a run at a URL: its uploads, as a callback; None where ``place`` is none.

    ``new``: nothing may have been uploaded there. ``warn`` hears of uploads that failed, in one line each. At
    the end of the block the last state is uploaded; UserError where that fails, or takes over ``bound_s``
    seconds. What the block raises names the URL as the place to go on from.
    """
    if place is None or not is_url(place):
        yield None
        return
    mirror = Mirror(place, warn)
    mirror.check(new)
    try:
        yield mirror
    except BaseException as error:
        if (failed := mirror.close(bound_s, changed=False)) is not None:
            warn(str(failed))
        if isinstance(error, UserError):
            told = str(error).replace(f"--resume {mirror.path}", f"--resume {place}")
            raise told_elsewhere(told, error.status) from error
        raise
    if (failed := mirror.close(bound_s)) is not None:
        raise failed


class Mirror:
    """Uploads the local folder of ``url`` whenever it is told of a checkpoint, while the run goes on.

    In a thread that ends with its process: an upload that hangs keeps nothing else waiting.
    """

    def __init__(self, url: str, warn: Callable[[str], None]) -> None:
        self.url = url
        self.path = local_path(url)
        self._uploads = Uploads(url)
        self._writer = uuid.uuid4().hex
        self._warn = warn
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed: UserError | None = None

    def check(self, new: bool) -> None:
        """UsageError where a ``new`` run would meet another; UserError where nothing can be written."""
        if new and self._uploads.numbers():
            raise UsageError(
                f"--out: '{self.url}' already holds a run; choose another, or continue it with --resume "
                f"{self.url}"
            )
        self._uploads.check_writable()

    def on_start(self, folder: Path, config: TrainConfig) -> None:
        """From now on the folder is known as the copy of this URL's run."""
        if folder == self.path and _known(self.path) is None:
            _write_known(self.path, Upload(uuid.uuid4().hex, self._writer))

    def on_checkpoint(self, record: dict[str, Any]) -> None:
        """Upload it; UserError where another command is uploading there too."""
        if isinstance(self._failed, OtherWriter):
            raise self._failed
        self._ask("changed")

    def close(self, bound_s: float, *, changed: bool = True) -> UserError | None:
        """Upload what is asked for by now, with ``changed`` the present state; why that did not work."""
        if not changed and self._thread is None:
            return None
        if _known(self.path) is None:  # a finished run, told again, that never was here
            return None
        self._ask("changed" if changed else "")
        self._ask("end")
        assert self._thread
        self._thread.join(bound_s)
        if self._thread.is_alive():
            return UserError(
                f"{self.url}: the upload takes over {bound_s:g} s; the run is in {self.path}, repeat the "
                "command to upload it"
            )
        return self._failed

    def _ask(self, what: str) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="upload")
            self._thread.start()
        self._asked.put(what)

    def _work(self) -> None:
        ends = False
        while not ends:
            asked = {self._asked.get()}
            while not self._asked.empty():
                asked.add(self._asked.get())
            ends = "end" in asked
            if "changed" in asked or (ends and self._failed):
                self._send(_TRIES_S if ends else _TRIES_S[:1])

    def _send(self, tries_s: tuple[float, ...]) -> None:
        """Upload the folder as it is; keeps why it did not work, and tells that once."""
        for wait_s in tries_s:
            if isinstance(self._failed, OtherWriter):
                return
            time.sleep(wait_s)
            before = self._failed
            try:
                known = _known(self.path)
                if known is None:  # the run was refused, its folder is gone
                    return
                now = self._uploads.send(
                    self.path, Upload(known.run, self._writer, known.number, known.files)
                )
                _write_known(self.path, now)
                self._failed = None
                return
            except UserError as error:
                self._failed = error
            except Exception as error:  # of this disk; a thread that ends in silence would look like success
                told = described(error)
                self._failed = UserError(f"{self.path}: cannot be uploaded ({told}); check this disk")
            if str(before) != str(self._failed) and tries_s == _TRIES_S[:1]:
                self._warn(f"{self._failed}; the run goes on in {self.path}, the next epoch tries again")


def _another(path: Path, url: str) -> UsageError:
    return UsageError(f"{path}: is the local copy of another run than the one at '{url}'; move it away")


def _known(path: Path) -> Upload | None:
    """What the local folder knows of its uploads; None where it knows of none."""
    if not (path / KNOWN).is_file():
        return None
    try:
        return Upload.from_json(read_json(path / KNOWN))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path / KNOWN}: was not written by this program; move {path} away") from error


def _write_known(path: Path, upload: Upload) -> None:
    from lasat_ray.runs.checkpoint import write_atomically  # late: it loads torch, --help needs none

    write_atomically(path / KNOWN, json.dumps(upload.to_json()).encode())


def _fetch(uploads: Uploads, there: Upload, path: Path) -> None:
    """Bring ``path`` to the newest upload. Cut off anywhere, the next command does it again: the folder
    counts as fetched once its note is written."""
    from lasat_ray.runs.cleanup import remove_ours
    from lasat_ray.runs.lock import locked

    new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    fetched = path / _FETCHED
    with locked(path / ".run.lock"):
        try:
            shutil.rmtree(fetched, ignore_errors=True)
            upload = uploads.fetch(fetched)
            if upload is None:
                raise UserError(f"{uploads.url}: its upload is gone; repeat the command")
            _write_known(path, Upload(there.run, there.writer, -1))
            remove_ours(path, {path / KNOWN, path / ".run.lock", *fetched.rglob("*")})
            for name in upload.files or {}:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (fetched / name).replace(path / name)
            _write_known(path, replace(upload, number=there.number))  # of an older one, where that is damaged
        finally:
            shutil.rmtree(fetched, ignore_errors=True)
            if new and _known(path) is None:
                shutil.rmtree(path, ignore_errors=True)
