"""Addresses that a setting may name, and the one place where fsspec is given any.

fsspec knows some thirty protocols, and chains of them (``a://x::b://y``). Some build files out of what
an address says (``reference``, ``data``), unpack archives or ask any server, so that an address would be a
program. What is opened here is a path of this machine or one of ``PROTOCOLS``, nothing else.
"""

from __future__ import annotations

from typing import Any

from lasat_ray.errors import UsageError, UserError, refusal

PROTOCOLS = ("file", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "hf", "memory")
"""Each reads (and, for --out, writes) plain files; memory is this process' own, for tests."""


def is_url(place: object) -> bool:
    """Whether a setting's value is an address, or holds one as ``stream:URL`` does."""
    return isinstance(place, str) and "://" in place


def check_url(url: str) -> None:
    """UserError for a chain of addresses, or a protocol that is not in the list; opens nothing."""
    protocol = url.partition("://")[0]
    if "::" in url:
        raise UserError(
            f"{url}: is a chain of addresses; name one file system alone, for example s3://BUCKET"
        )
    if protocol not in PROTOCOLS:
        raise UserError(
            f"{url}: '{protocol}' is no protocol that is read; use one of: {', '.join(PROTOCOLS)}"
        )


def filesystem_of(place: str) -> tuple[Any, str]:
    """fsspec's file system of a path or URL, and the path on it; UserError as ``check_url``.

    A path without ``://`` is this machine's, whatever else it spells: fsspec would take ``data:,x`` and
    ``zip::x`` for addresses. Raises what fsspec does where a file system's package is not installed.
    """
    import fsspec  # late: --help needs none

    if is_url(place):
        check_url(place)
        return fsspec.core.url_to_fs(place)
    local = fsspec.filesystem("file")
    return local, local._strip_protocol(place)


def first_bytes(fs: Any, path: str, most: int) -> bytes:
    """The first ``most`` bytes of a file of ``filesystem_of``, or all of it where it has fewer.

    A range is asked for only where the file is longer: some object stores refuse one that ends behind the
    file, and every one refuses any range of an empty file. Raises what the file system does.
    """
    size = fs.size(path)
    return fs.cat_file(path) if size is not None and size <= most else fs.cat_file(path, start=0, end=most)


def open_place(url: str, option: str) -> tuple[Any, str]:
    """``filesystem_of`` a URL that ``option`` names to be written to, its path without a slash at the end;
    UsageError in one line that names the option for what cannot be opened, or can only be read."""
    try:
        fs, root = filesystem_of(url)
    except UserError as error:
        raise UsageError(f"{option}: {error}") from error
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{option}: '{url}' cannot be opened ({error}); install what it names, or give a path"
        ) from error
    if url.startswith(("http://", "https://")):
        raise refusal(option, f"'{url}'", "can only be read", "name a bucket, for example s3://BUCKET/run")
    return fs, root.rstrip("/")
