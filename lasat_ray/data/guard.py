"""What stands between a foreign file and this process: limits, and one readable error for any damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lasat_ray.config.files import check_regular
from lasat_ray.data.memory import free_bytes
from lasat_ray.errors import UserError

MAX_PIXELS = 64 * 1024 * 1024
"""Largest image that is decoded; the pixels of a decompression bomb are counted from its header."""

MAX_IMAGE_BYTES = 256 * 2**20
"""Largest encoded image that is read."""

MAX_EXPANSION = 200
"""How many times its packed size an array may have; pixels of photographs shrink at most tenfold."""

FREE_EXPANSION = 16 * 2**20
"""Bytes that may be unpacked from anything: small arrays of zeros are no attack."""

MAX_CLASSES = 65_536
"""Largest number of classes without names; one damaged label must not make a net of a billion outputs."""


@contextmanager
def reading(where: str, remedy: str = "replace it with an undamaged copy") -> Iterator[None]:
    """Turn whatever a decoder throws at a damaged file into one UserError that names ``where``.

    Everything is caught on purpose: on arbitrary bytes PIL and pyarrow raise SyntaxError,
    struct.error, OverflowError and more, and none of these is a fault of ours.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{where}: no such file; check the path") from None
    except MemoryError as problem:
        raise UserError(
            f"{where}: does not fit into memory while it is read; a huge set streams (--dataset stream:URL), "
            "a small file that asks for so much is damaged"
        ) from problem
    except Exception as problem:
        lines = str(problem).strip().splitlines()
        reason = lines[0] if lines else type(problem).__name__
        raise UserError(f"{where}: cannot be read ({reason.rstrip('.')}); {remedy}") from problem


@contextmanager
def files_at(name: str) -> Iterator[None]:
    """Turn what the system says about a path (no permission, too long a name) into a UserError."""
    try:
        yield
    except OSError as problem:
        place = problem.filename or name
        raise UserError(
            f"{place}: cannot be opened ({problem.strerror}); check the path of {name}"
        ) from problem


def read_file(path: Path, limit: int = MAX_IMAGE_BYTES) -> bytes:
    """The content of an ordinary file of at most ``limit`` bytes; UserError naming any other.

    A pipe would never end, and neither would a device.
    """
    with reading(str(path)):
        check_regular(path)
        with open(path, "rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise UserError(f"{path}: has more than {limit:,} bytes; remove it or make it smaller")
        return content


def check_expansion(unpacked: int, packed: int, where: str) -> None:
    """UserError for a decompression bomb: far more bytes than any image unpacks to; nothing is read yet."""
    if unpacked > max(FREE_EXPANSION, MAX_EXPANSION * packed):
        raise UserError(
            f"{where}: unpacks {packed:,} bytes to {unpacked:,}, over the limit of {MAX_EXPANSION} times; "
            "save it uncompressed if it is real"
        )


def check_pixels(height: int, width: int, where: str) -> None:
    """UserError where an image's header declares more than MAX_PIXELS, or none; nothing is decoded yet."""
    if height < 1 or width < 1:
        raise UserError(f"{where}: declares {width}x{height} pixels; replace it with an undamaged copy")
    if height * width > MAX_PIXELS:
        raise UserError(
            f"{where}: declares {width}x{height} pixels, over the limit of {MAX_PIXELS:,}; "
            "remove it or make it smaller"
        )


def check_bytes(count: int, where: str) -> None:
    """UserError where an array would not fit into the memory that is free; nothing is read yet."""
    free = free_bytes()
    if count > free:
        raise UserError(
            f"{where}: needs {count / 2**30:.1f} GiB and {free / 2**30:.1f} GiB of memory is free; "
            "use fewer or smaller images"
        )


def check_labels(label_N: np.ndarray, num_classes: int | None, where: Callable[[int], str]) -> None:
    """UserError naming the first row whose label is no class.

    ``label_N`` [N] integers; ``num_classes`` None stands for MAX_CLASSES; ``where(row)`` names
    the file and row.
    """
    top = (MAX_CLASSES if num_classes is None else num_classes) - 1
    bad_N = (label_N < 0) | (label_N > top)
    if bad_N.any():
        row = int(bad_N.argmax())
        raise UserError(f"{where(row)}: label {label_N[row]} is outside 0..{top}; correct or remove that row")
