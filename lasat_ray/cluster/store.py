"""How large the object store of a private Ray may be."""

from __future__ import annotations

import os
from pathlib import Path

from lasat_ray.data.memory import free_bytes

SMALLEST_BYTES = 75 * 2**20
"""What Ray asks for at least."""
LARGEST_BYTES = 200 * 10**9
"""Ray's own limit where nobody names a size."""


def store_bytes(shared: Path = Path("/dev/shm")) -> int:
    """Ray's share of memory, three tenths, of what is free to this process instead of the machine's; no more
    than the shared memory has room for.

    Ray looks only at the topmost control group: a job's limit below it would be passed, and the kernel would
    end the job. Where shared memory is smaller than the smallest store, Ray takes a folder on the disk.
    """
    room = int(0.3 * free_bytes())
    try:
        stat = os.statvfs(shared)
        room = min(room, int(0.95 * stat.f_bavail * stat.f_frsize))
    except OSError:
        pass  # none: Ray takes a folder on the disk
    return max(SMALLEST_BYTES, min(room, LARGEST_BYTES))
