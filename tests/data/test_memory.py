"""Memory as a container or a job has it, from folders like those of the kernel."""

import subprocess
import sys

import pytest

from lasat_ray.cluster import store
from lasat_ray.data.guard import check_bytes
from lasat_ray.data.memory import free_bytes, group_bytes
from lasat_ray.errors import UserError

GIB = 2**30


def machine(root, available_gib, groups="0::/\n"):
    (root / "proc" / "self").mkdir(parents=True)
    (root / "sys" / "fs" / "cgroup").mkdir(parents=True)
    meminfo = f"MemTotal: 99999999 kB\nMemAvailable: {available_gib * 2**20} kB\n"
    (root / "proc" / "meminfo").write_text(meminfo)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    return root


def group(root, path, limit, used, stat="", version=2):
    place = root / "sys" / "fs" / "cgroup" / path
    place.mkdir(parents=True, exist_ok=True)
    names = (
        ("memory.max", "memory.current")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    for name, value in zip(names, (limit, used), strict=True):
        (place / name).write_text(f"{value}\n")
    if stat:
        (place / "memory.stat").write_text(stat)


def test_without_limits_it_is_the_machine_s(tmp_path):
    root = machine(tmp_path, 48)
    assert free_bytes(root) == 48 * GIB
    group(root, "", "max", 5 * GIB)
    assert free_bytes(root) == 48 * GIB and group_bytes(root) == []


def test_a_container_s_own_group_counts(tmp_path):
    root = machine(tmp_path, 48)
    group(root, "", 4 * GIB, GIB)
    assert free_bytes(root) == 3 * GIB


@pytest.mark.parametrize(("inner", "outer", "left"), [(2, 8, 1), ("max", 3, 2), (8, 2, 1)])
def test_of_nested_groups_the_narrowest_counts(inner, outer, left, tmp_path):
    """A SLURM step or a systemd unit: the limit may be set at any level above the process."""
    root = machine(tmp_path, 48, "0::/system.slice/job_7/step_0\n")
    group(root, "", "max", 20 * GIB)
    size = inner if inner == "max" else inner * GIB
    group(root, "system.slice/job_7/step_0", size, GIB)
    group(root, "system.slice/job_7", outer * GIB, GIB)
    group(root, "system.slice/job_8", GIB, GIB)  # a neighbour's
    assert free_bytes(root) == left * GIB


def test_version_1_and_its_no_limit(tmp_path):
    lines = "5:cpu,cpuacct:/other\n4:memory:/jobs/a\n0::/\n"
    root = machine(tmp_path, 48, lines)
    group(root, "memory", 9223372036854771712, 30 * GIB, version=1)
    assert free_bytes(root) == 48 * GIB
    group(root, "memory/jobs/a", 6 * GIB, 2 * GIB, "total_inactive_file 1073741824\n", version=1)
    group(root, "memory/other", GIB, GIB, version=1)
    assert free_bytes(root) == 5 * GIB


def test_cached_files_give_way(tmp_path):
    """Reading a large data set fills a container up to its limit; that memory is free all the same."""
    root = machine(tmp_path, 48)
    stat = f"anon 5\ninactive_file {3 * GIB}\nactive_file {GIB // 2}\nfile {4 * GIB}\n"
    group(root, "", 8 * GIB, 8 * GIB, stat)
    assert free_bytes(root) == 3 * GIB + GIB // 2


def test_a_group_over_its_limit_leaves_nothing(tmp_path):
    root = machine(tmp_path, 48)
    group(root, "", GIB, 2 * GIB)
    assert free_bytes(root) == 0


def test_nothing_told_is_16_gib(tmp_path):
    assert free_bytes(tmp_path) == 16 * GIB


def test_arrays_are_refused_by_the_container_s_memory(monkeypatch):
    monkeypatch.setattr("lasat_ray.data.guard.free_bytes", lambda: GIB)
    with pytest.raises(UserError, match=r"x.npz: needs 2.0 GiB and 1.0 GiB of memory is free"):
        check_bytes(2 * GIB, "x.npz")


def test_the_object_store_has_a_share_of_what_is_free_to_us(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "free_bytes", lambda: 2 * GIB)
    assert store.store_bytes(tmp_path / "none") == int(0.6 * GIB)
    monkeypatch.setattr(store, "free_bytes", lambda: 0)
    assert store.store_bytes(tmp_path) == store.SMALLEST_BYTES


SMALL = """
import os, ray
from lasat_ray.cluster.session import ray_session
with ray_session(None, 60, dashboard=False):
    print(int(ray.cluster_resources()["object_store_memory"]), ray.get(ray.put(b"x" * (40 << 20)))[:1])
"""


@pytest.mark.ray
@pytest.mark.parametrize("megabytes", [16, 200])
def test_ray_starts_where_shared_memory_is_small(megabytes, tmp_path):
    mount = f"mount -t tmpfs -o size={megabytes}m tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "bash", "-c", mount], capture_output=True).returncode:
        pytest.skip("this account may not mount a shared memory of its own")
    command = ["unshare", "-m", "bash", "-c", f'{mount}; exec "$@"', "bash", sys.executable, "-c", SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    size, back = done.stdout.split()
    assert back == "b'x'" and int(size) == max(store.SMALLEST_BYTES, int(0.95 * megabytes * 2**20))
