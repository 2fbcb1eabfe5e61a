"""A run folder under a URL such as s3://bucket/run, of which nobody ever reads half an upload.

``data/SHA256`` holds a piece of a file under the name of its content, written once. ``upload-NUMBER.json``
says which pieces make which files and is written after them, so what it names is there; one that was cut off
is no JSON. The newest two are kept. A file that has only grown (records, events) sends what is new.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from lasat_ray.config.json_io import MAX_JSON_BYTES
from lasat_ray.config.urls import first_bytes, open_place
from lasat_ray.errors import UserError

FORMAT = "lasat-ray upload 1"
_POINTER = re.compile(r"upload-(\d{8})\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_PIECES = 64  # of a file; each is a request when it is fetched
_READS = 3  # while another machine uploads, what was listed may be gone when it is fetched
_FIRST = ("previous.safetensors", "last.safetensors", "best.safetensors")

Piece = tuple[str, int]
"""SHA-256 of its bytes, in hex, and how many they are."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One state of a run folder. ``run`` names the run, ``writer`` the command that uploaded."""

    run: str
    writer: str
    number: int = 0
    files: dict[str, tuple[Piece, ...]] | None = None

    def to_json(self) -> dict[str, Any]:
        named = {"format": FORMAT, "run": self.run, "writer": self.writer, "number": self.number}
        return {**named, "files": self.files or {}}

    @classmethod
    def from_json(cls, content: Any) -> Upload:
        """ValueError, KeyError or TypeError for what this program did not write."""
        if content["format"] != FORMAT:
            raise ValueError(f"format is {content['format']!r}")
        files = {
            _checked_name(name): tuple((_checked_hash(digest), int(size)) for digest, size in pieces)
            for name, pieces in content["files"].items()
        }
        return cls(str(content["run"]), str(content["writer"]), int(content["number"]), files)

    @property
    def hashes(self) -> set[str]:
        return {digest for pieces in (self.files or {}).values() for digest, _ in pieces}


class Uploads:
    """The uploads of one run at ``url``; UserError in one line, naming it, for what its server refuses."""

    def __init__(self, url: str, option: str = "--out") -> None:
        self.url = url
        self._fs, self._root = open_place(url, option)
        self._marks: dict[str, tuple[tuple[int, int], tuple[Piece, ...]]] = {}

    def numbers(self) -> list[int]:
        """Of all uploads that were begun to be named, the oldest first."""
        with self._reached("read"):
            found = (_POINTER.fullmatch(name) for name in self._names(self._root))
            return sorted(int(match[1]) for match in found if match)

    def newest(self) -> Upload | None:
        """The newest upload that was named to its end; None where there is none."""
        return next(self._whole(), None)

    def check_writable(self) -> None:
        """UserError unless something can be written here."""
        probe = f"{self._root}/.writable"
        with self._reached("written to"):
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(probe, b"lasat-ray\n")
        with suppress(Exception):
            self._fs.rm_file(probe)

    def send(self, folder: Path, known: Upload) -> Upload:
        """Upload what is new in ``folder`` since ``known``, by its writer; gives what is then the newest.

        OtherWriter where another command has uploaded since ``known``: two at work would undo each other.
        """
        numbers, there = self.numbers(), self.newest()
        base = replace(known, files=self._base(known, there))
        sent = {name: self._send_file(path, name, base) for name, path in _files_of(folder)}
        files = {name: pieces for name, pieces in sent.items() if pieces is not None}
        if files == base.files:
            return base if there is None else replace(base, number=there.number)
        if self.numbers() != numbers:
            raise self._other()
        upload = replace(known, number=max([known.number, *numbers]) + 1, files=files)
        with self._reached("written to"):
            self._fs.pipe_file(self._pointer(upload.number), json.dumps(upload.to_json()).encode())
        with suppress(Exception):  # what is left over costs space alone, and goes the next time
            self._tidy([upload] if there is None else [there, upload])
        return upload

    def _base(self, known: Upload, there: Upload | None) -> dict[str, tuple[Piece, ...]]:
        """The files that need not be sent again: of the newest upload, unless that is another command's."""
        if there is None:
            return {}
        if there.run == known.run and there.number == known.number:
            return known.files or {}  # without those that were damaged there
        ours = there.writer == known.writer  # named, though its server reported a failure
        if there.run == known.run and (ours or there.number < known.number):
            return there.files or {}
        raise self._other()

    def _other(self) -> OtherWriter:
        return OtherWriter(
            f"{self.url}: another command has uploaded here since this one began; end one of them"
        )

    def fetch(self, to: Path) -> Upload | None:
        """Write the newest upload that is whole into the new folder ``to``; None where there is none."""
        for _ in range(_READS):
            faults = []
            for upload in self._whole():
                try:
                    for name, pieces in (upload.files or {}).items():
                        self._fetch_file(to / name, pieces)
                    return upload
                except _NotWhole as error:
                    faults.append(str(error))
            if not faults:
                return None
        raise UserError(f"{self.url}: no whole upload is left ({faults[0]}); restore it, or start anew")

    def _whole(self) -> Iterator[Upload]:
        """The uploads whose naming is whole, the newest first."""
        for number in reversed(self.numbers()):
            with self._reached("read"), suppress(FileNotFoundError):
                content = first_bytes(self._fs, self._pointer(number), MAX_JSON_BYTES)
                with suppress(ValueError, KeyError, TypeError, AttributeError):
                    yield Upload.from_json(json.loads(content))

    def _send_file(self, path: Path, name: str, known: Upload) -> tuple[Piece, ...] | None:
        """The pieces of a file, those that are not there yet uploaded; None where it is gone by now."""
        try:
            stat = path.stat()
            mark = (stat.st_size, stat.st_mtime_ns)
            if self._marks.get(name) == (mark, (known.files or {}).get(name)):
                return self._marks[name][1]
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        before = _unchanged((known.files or {}).get(name, ()), content)
        start = sum(size for _, size in before)
        pieces = before
        if start < len(content) or not before:
            rest = content[start:]
            digest = hashlib.sha256(rest).hexdigest()
            pieces = (*before, (digest, len(rest)))
            if digest not in known.hashes:
                with self._reached("written to"):
                    self._fs.makedirs(f"{self._root}/data", exist_ok=True)
                    self._fs.pipe_file(self._data(digest), rest)
        self._marks[name] = (mark, pieces)
        return pieces

    def _fetch_file(self, to: Path, pieces: Sequence[Piece]) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        with open(to, "wb") as file:
            for digest, size in pieces:
                try:
                    with self._reached("read"):
                        content = self._fs.cat_file(self._data(digest))
                except FileNotFoundError:
                    raise _NotWhole(f"data/{digest} of {to.name} is gone") from None
                if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
                    raise _NotWhole(f"data/{digest} of {to.name} is damaged")
                file.write(content)

    def _tidy(self, kept: Sequence[Upload]) -> None:
        """Remove uploads that are not ``kept``, then the pieces that no kept one names."""
        for number in self.numbers():
            if number not in [upload.number for upload in kept]:
                self._fs.rm_file(self._pointer(number))
        used = set().union(*(upload.hashes for upload in kept))
        for name in self._names(f"{self._root}/data"):
            if _SHA256.fullmatch(name) and name not in used:
                self._fs.rm_file(self._data(name))

    def _names(self, folder: str) -> list[str]:
        self._fs.invalidate_cache()  # else what other machines wrote stays unseen
        try:
            return [path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(folder, detail=False)]
        except FileNotFoundError:
            return []

    def _pointer(self, number: int) -> str:
        return f"{self._root}/upload-{number:08}.json"

    def _data(self, digest: str) -> str:
        return f"{self._root}/data/{digest}"

    @contextmanager
    def _reached(self, what: str) -> Iterator[None]:
        try:
            yield
        except (UserError, FileNotFoundError):
            raise
        except Exception as error:  # each file system has errors of its own
            told = str(error) or type(error).__name__
            remedy = "check the address, and the rights of this account there"
            raise UserError(f"{self.url}: cannot be {what} ({told}); {remedy}") from error


class OtherWriter(UserError):
    """The place is another command's now; nothing there may be touched."""


class _NotWhole(Exception):
    """A piece of an upload is gone or damaged."""


def _files_of(folder: Path) -> list[tuple[str, Path]]:
    """(name, path) of what is uploaded: checkpoints before the records that they count on."""
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not _hidden(path.relative_to(folder))
    ]
    found.sort(key=lambda path: (path.name not in _FIRST, path))
    return [(path.relative_to(folder).as_posix(), path) for path in found]


def _hidden(path: Path) -> bool:
    """Locks and half-written files of ours, and the name that a checkpoint has until it is whole."""
    return any(part.startswith(".") for part in path.parts) or path.name == "newest.safetensors"


def _unchanged(pieces: Sequence[Piece], content: bytes) -> tuple[Piece, ...]:
    """``pieces`` where ``content`` begins with all of them, else none."""
    at = 0
    for digest, size in pieces:
        if hashlib.sha256(content[at : at + size]).hexdigest() != digest:
            return ()
        at += size
    return tuple(pieces) if len(pieces) < _MOST_PIECES or at == len(content) else ()


def _checked_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or "\\" in name or not path.parts or _hidden(Path(name)):
        raise ValueError(f"'{name}' is no file of a run folder")
    return name


def _checked_hash(digest: str) -> str:
    if not _SHA256.fullmatch(digest):
        raise ValueError(f"'{digest}' is no SHA-256")
    return digest
