"""A disk that loses power: records what is done below a folder, and shows what may be left of it.

Held to what POSIX promises and to nothing more. Bytes of a file are safe once that file was synced, a name
once its folder was; what is not safe may be there or not, each piece by itself, whatever came first. A
hole that a lost write leaves before a kept one is zeros.
"""

from __future__ import annotations

import builtins
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

Operation = tuple[Any, ...]
"""("data", inode, offset, bytes), ("cut", inode, size), ("names", folder, {path: inode or None}),
("sync", inode) and ("sync folder", folder)."""


@dataclass
class CrashDisk:
    """Operations in order; ``marks``: how many there were when something was promised."""

    root: Path
    log: list[Operation] = field(default_factory=list)
    marks: list[tuple[int, Any]] = field(default_factory=list)
    _inodes: dict[str, int] = field(default_factory=dict)

    def mark(self, promise: Any) -> None:
        self.marks.append((len(self.log), promise))

    @contextmanager
    def recording(self) -> Iterator[None]:
        real = {name: getattr(os, name) for name in ("open", "fsync", "replace", "unlink")}
        real_open = builtins.open

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            ours = self._ours(file) and any(letter in mode for letter in "wa+")
            new = ours and not os.path.exists(file)
            stream = real_open(file, mode, *args, **kwargs)
            return _Watched(self, stream, str(file), new, mode) if ours else stream

        def fsync(handle: int) -> None:
            real["fsync"](handle)
            path = os.readlink(f"/proc/self/fd/{handle}")
            if self._ours(path):
                folder = os.path.isdir(path)
                self.log.append(("sync folder", path) if folder else ("sync", self._inodes[path]))

        def replace(source: Any, target: Any) -> None:
            real["replace"](source, target)
            inode = self._inodes.pop(str(source))
            self._inodes[str(target)] = inode
            self._names(target, {str(source): None, str(target): inode})

        def unlink(path: Any, *args: Any, **kwargs: Any) -> None:
            real["unlink"](path, *args, **kwargs)
            if self._inodes.pop(str(path), None) is not None:
                self._names(path, {str(path): None})

        with (
            mock.patch.object(builtins, "open", opened),
            mock.patch.object(os, "fsync", fsync),
            mock.patch.object(os, "replace", replace),
            mock.patch.object(os, "unlink", unlink),
        ):
            yield

    def left_after(self, count: int, to: Path, keep: random.Random | bool) -> None:
        """Build in ``to`` what a crash after ``count`` operations may leave; ``keep``: all, nothing, or a
        random part of what was not safe."""
        log = self.log[:count]
        files: dict[int, bytearray] = {}
        names: dict[str, int] = {}
        for operation, safe in zip(log, self._safe(count), strict=True):
            if operation[0].startswith("sync"):
                continue
            if not (safe or (keep if isinstance(keep, bool) else keep.random() < 0.5)):
                continue
            if operation[0] == "names":
                for path, inode in operation[2].items():
                    names.pop(path, None) if inode is None else names.update({path: inode})
                continue
            content = files.setdefault(operation[1], bytearray())
            if operation[0] == "cut":
                del content[operation[2] :]
            else:
                _, _, offset, data = operation
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(data)] = data
        for path, inode in names.items():
            target = to / Path(path).relative_to(self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(bytes(files.get(inode, b"")))

    def _safe(self, count: int) -> list[bool]:
        """Which of the first ``count`` operations a later sync among them has made safe."""
        synced: set[Any] = set()
        safe = []
        for operation in reversed(self.log[:count]):
            if operation[0].startswith("sync"):
                synced.add(operation[1])
            safe.append(operation[1] in synced)
        return safe[::-1]

    def _names(self, path: Any, change: dict[str, int | None]) -> None:
        self.log.append(("names", str(Path(path).parent), change))

    def _ours(self, path: Any) -> bool:
        return (
            isinstance(path, (str, Path))
            and Path(path).is_relative_to(self.root)
            and "tfevents" not in str(path)
        )


class _Watched:
    """A file whose bytes reach the system when it is flushed or closed, as Python's own do."""

    def __init__(self, disk: CrashDisk, stream: Any, path: str, new: bool, mode: str) -> None:
        self._disk, self._stream = disk, stream
        if new:
            disk._inodes[path] = len(disk._inodes) + len(disk.log) + 1
            disk._names(path, {path: disk._inodes[path]})
        self._inode = disk._inodes[path]
        if "w" in mode and not new:
            disk.log.append(("cut", self._inode, 0))
        self._offset = os.path.getsize(path) if "a" in mode else 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, content: Any) -> int:
        data = content if isinstance(content, bytes) else content.encode()
        self._disk.log.append(("data", self._inode, self._offset, data))
        self._offset += len(data)
        return self._stream.write(content)

    def truncate(self, size: int) -> int:
        self._disk.log.append(("cut", self._inode, size))
        return self._stream.truncate(size)
