"""How much memory this process may still take: the machine's, or what its container or job leaves of it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

_UNKNOWN_BYTES = 16 * 2**30
_V2 = ("memory.max", "memory.current", "inactive_file", "active_file")
_V1 = (
    *("memory.limit_in_bytes", "memory.usage_in_bytes"),
    *("total_inactive_file", "total_active_file"),
)
"""Files of a control group: its limit and what it uses; in its memory.stat what the kernel can drop."""


def free_bytes(root: Path = Path("/")) -> int:
    """Bytes that the kernel says are available, or that the narrowest limit of the control groups around this
    process leaves where that is less; 16 GiB where nothing says. ``root`` holds proc and sys."""
    try:
        lines = (root / "proc" / "meminfo").read_text().splitlines()
        table = dict(line.split(":", 1) for line in lines)
        free = int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = _UNKNOWN_BYTES
    return min([free, *group_bytes(root)])


def group_bytes(root: Path) -> list[int]:
    """What is left below each limit of this process' control groups, version 1 or 2, and those around them.

    A container sees its own group as the topmost one; a SLURM step or a systemd unit lies some levels down.
    """
    top = root / "sys" / "fs" / "cgroup"
    left = []
    for mount, path, names in (
        *((top / place, _own_group(root, ""), _V2) for place in ("", "unified")),
        (top / "memory", _own_group(root, "memory"), _V1),
    ):
        for group in (path, *path.parents):
            free = _left(mount / group.relative_to("/"), names)
            left += [] if free is None else [free]
    return left


def _own_group(root: Path, controller: str) -> PurePosixPath:
    """This process' group under a controller of version 1, or, for "", of version 2; "/" without one."""
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") and path.startswith("/") and ".." not in path:
            return PurePosixPath(path)
    return PurePosixPath("/")


def _left(group: Path, names: tuple[str, ...]) -> int | None:
    """Limit less use, files that the kernel keeps only as long as there is room left out; None without a
    limit."""
    limit, used, *cached = names
    try:
        bytes_left = int((group / limit).read_text()) - int((group / used).read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None
    try:
        table = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        bytes_left += sum(int(table.get(name, 0)) for name in cached)
    except (OSError, ValueError):
        pass
    return max(0, bytes_left)
