"""Where the parquet files of a data set lie: below a local path or at any fsspec URL."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

from lasat_ray.config.urls import filesystem_of
from lasat_ray.data.guard import reading
from lasat_ray.errors import UserError

_REMOTE = "check the address, and that what fsspec needs for it is installed"


def find_folder(place: str, kind: str, *prefixes: str) -> str:
    """``place`` itself or the one folder in it that has train-*.parquet (or what ``prefixes`` ask for).
    A local path or a URL.

    UserError where there is none or more than one; ``kind`` is the source's name in the message.
    """
    with reading(place, _REMOTE):
        fs, root = filesystem_of(place)
        root = root.rstrip("/") or root
        if not fs.isdir(root):
            spelled = f"write {kind}:PATH with the folder of train-*.parquet"
            raise UserError(f"{place}: no such folder; {spelled}")
        inner = sorted(entry["name"] for entry in fs.ls(root, detail=True) if entry["type"] == "directory")
        outer = [_address(fs, path) for path in (root, *inner)]
    wanted = prefixes or ("train",)
    found = [path for path in outer if any(_matching(path, prefix) for prefix in wanted)]
    if not found:
        raise UserError(f"{outer[0]}: holds no {wanted[0]}-*.parquet; name the folder that does")
    if len(found) > 1 and found[0] != outer[0]:
        first, second = (path.rpartition("/")[2] for path in found[:2])
        raise UserError(f"{outer[0]}: {wanted[0]}-*.parquet is in {first} and {second}; name one of them")
    return found[0]


def find_split(folder: str, *prefixes: str) -> tuple[str, ...]:
    """PREFIX-*.parquet of the first prefix that has any, in the order of their names."""
    for prefix in prefixes:
        if files := _matching(folder, prefix):
            return files
    raise UserError(f"{folder}: holds no {prefixes[0]}-*.parquet; add the {prefixes[0]} images there")


def find_tests(folder: str) -> list[tuple[str, ...]]:
    """The files of every part that may be the test part, best first: test-*, val-*, valid-* and validation-*.

    UserError where there is none.
    """
    found = [
        files for prefix in ("test", "val", "valid", "validation") if (files := _matching(folder, prefix))
    ]
    return found or [find_split(folder, "test")]


def _matching(folder: str, prefix: str) -> tuple[str, ...]:
    fs, root = filesystem_of(folder)
    listed = sorted(entry["name"] for entry in fs.ls(root, detail=True))
    return tuple(
        _address(fs, path) for path in listed if fnmatch(path.rpartition("/")[2], f"{prefix}-*.parquet")
    )


def _address(fs: Any, path: str) -> str:
    """How a file is named and opened again: a plain path where it is local, else its URL."""
    return path if "file" in fs.protocol else fs.unstrip_protocol(path)
