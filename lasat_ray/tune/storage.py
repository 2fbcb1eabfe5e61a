"""Where a sweep lies: a folder (on a cluster one that all machines share) or any fsspec URL.

Under a URL a trial works in a scratch folder of its machine, which is uploaded after every epoch and
fetched when the trial goes on elsewhere. The run folder's checkpoints prove themselves whole and keep
the one before, so an upload that was cut off costs an epoch and no more.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from lasat_ray.config.urls import is_url, open_place
from lasat_ray.errors import UserError, not_made
from lasat_ray.runs.lock import InUse, locked

TRIALS = "trials"
_LAST = ("best.safetensors", "previous.safetensors", "last.safetensors", "summary.json")
"""Uploaded after everything else, in this order: a checkpoint never speaks of lines not yet there."""


class Store:
    """Files of one sweep under ``out``, a path or a URL such as s3://bucket/sweep."""

    def __init__(self, out: str) -> None:
        self.out = out
        self.is_url = is_url(out)
        self._fs: Any = None
        self.root = str(Path(out).resolve())
        if self.is_url:
            self._fs, self.root = open_place(out, "--out")
        self._sent: dict[tuple[str, str], tuple[int, int]] = {}

    def exists(self, name: str = "") -> bool:
        path = self._at(name)
        return bool(self._fs.exists(path)) if self._fs else Path(path).exists()

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file; UserError when the place refuses it."""
        path = self._at(name)
        if not self._fs:
            self._make(Path(path).parent)
            from lasat_ray.runs.checkpoint import write_atomically  # late: it loads torch, --help needs none

            write_atomically(Path(path), content)
            return
        try:
            self._fs.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            self._fs.pipe_file(path, content)
        except Exception as error:  # each file system has errors of its own
            told = str(error) or type(error).__name__
            raise UserError(f"--out: cannot write to '{self.out}' ({told}); choose another") from error

    def read(self, name: str) -> bytes | None:
        """A file's content, None where there is none."""
        path = self._at(name)
        try:
            return self._fs.cat_file(path) if self._fs else Path(path).read_bytes()
        except FileNotFoundError:
            return None

    def write_json(self, name: str, content: Any) -> None:
        self.write(name, (json.dumps(content, indent=1) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Content of a JSON file, None where there is none; UserError where it is damaged."""
        content = self.read(name)
        try:
            return None if content is None else json.loads(content)
        except ValueError as error:
            raise UserError(f"{self._at(name)}: is not JSON ({error}); remove it to run it again") from error

    @contextmanager
    def alone(self, kept: str) -> Iterator[None]:
        """Be the only command that works on this sweep; InUse where another process is. Of a URL nobody can
        tell. A folder that was made for the block goes with it where the file ``kept`` did not come."""
        if self._fs:
            yield
            return
        root = Path(self.root)
        new = [folder for folder in (root, *root.parents) if not folder.exists()]
        self._make(root)
        lock = root / ".sweep.lock"
        with locked(lock):
            try:
                yield
            finally:
                if new and not self.exists(kept):
                    lock.unlink(missing_ok=True)
                    with suppress(OSError):  # something else has come into it
                        for folder in new:
                            folder.rmdir()

    @contextmanager
    def folder(self, trial: str, patience: float = 60.0) -> Iterator[Path]:
        """The trial's run folder as a local path, held by this process alone; perhaps not there yet.

        A trial whose driver was killed may live on for some seconds: wait for it, then UserError.
        """
        if self._fs:
            scratch = Path(tempfile.mkdtemp(prefix="lasat-trial-"))
            try:
                yield self._fetch(trial, scratch / trial)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            return
        path = Path(self._at(f"{TRIALS}/{trial}"))
        self._make(path.parent)
        try:
            with locked(path.with_suffix(path.suffix + ".lock"), patience_s=patience):
                yield path
        except InUse as error:
            raise UserError(
                f"{path}: is in use by another process of this sweep; end that one first"
            ) from error

    def send(self, trial: str, folder: Path) -> None:
        """Upload what changed in a run folder; nothing to do where trials work in place."""
        if not self._fs:
            return
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        files.sort(key=lambda path: (_LAST.index(path.name) if path.name in _LAST else -1, str(path)))
        for path in files:
            name, stat = path.relative_to(folder).as_posix(), path.stat()
            if self._sent.get((trial, name)) != (mark := (stat.st_size, stat.st_mtime_ns)):
                self.write(f"{TRIALS}/{trial}/{name}", path.read_bytes())
                self._sent[trial, name] = mark

    def fetch(self, trial: str, to: Path) -> bool:
        """Copy another trial's run folder to ``to``; False if there is none."""
        if self._fs:
            return self._fetch(trial, to).exists()
        source = Path(self._at(f"{TRIALS}/{trial}"))
        if source.exists():
            shutil.copytree(source, to)
        return source.exists()

    def _fetch(self, trial: str, to: Path) -> Path:
        assert self._fs
        source = self._at(f"{TRIALS}/{trial}")
        for path in self._fs.find(source) if self._fs.exists(source) else []:
            inside = PurePosixPath(path).relative_to(source)
            if ".." in inside.parts:
                raise UserError(f"{self.out}: '{inside}' leads out of the sweep; remove it there")
            target = to / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._fs.cat_file(path))
        return to

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_made(folder, error) from error

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root
