"""What stands between a foreign file and this process: limits, and one readable error for any damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from lasat_ray.errors import UserError

MAX_PIXELS = 64 * 1024 * 1024
"""Largest image that is decoded; the pixels of a decompression bomb are counted from its header."""

_FALLBACK_BYTES = 16 * 2**30


@contextmanager
def reading(where: str, remedy: str = "replace it with an undamaged copy") -> Iterator[None]:
    """Turn whatever a decoder throws at a damaged file into one UserError that names ``where``.

    Everything is caught on purpose: on arbitrary bytes PIL and pyarrow raise SyntaxError,
    struct.error, OverflowError, MemoryError and more, and none of these is a fault of ours.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{where}: no such file; check the path") from None
    except Exception as problem:
        lines = str(problem).strip().splitlines()
        reason = lines[0] if lines else type(problem).__name__
        raise UserError(f"{where}: cannot be read ({reason.rstrip('.')}); {remedy}") from problem


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


def free_bytes() -> int:
    """Memory that the kernel says is available; 16 GiB where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            table = dict(line.split(":", 1) for line in lines)
        return int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return _FALLBACK_BYTES


def check_labels(label_N: np.ndarray, num_classes: int | None, where: Callable[[int], str]) -> None:
    """UserError naming the first row whose label is no class.

    ``label_N`` integers; ``num_classes`` None asks only that labels are not negative;
    ``where(row)`` names the file and row.
    """
    if label_N.ndim != 1 or label_N.dtype.kind not in "iu":
        raise UserError(
            f"{where(0)}: labels are {label_N.dtype} of shape {label_N.shape}; want integers of shape (N,)"
        )
    bad = label_N < 0
    if num_classes is not None:
        bad |= label_N >= num_classes
    if bad.any():
        row = int(bad.argmax())
        top = "0.." + ("" if num_classes is None else str(num_classes - 1))
        raise UserError(f"{where(row)}: label {label_N[row]} is outside {top}; correct or remove that row")
