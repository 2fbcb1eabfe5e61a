"""Requests that cannot be met fail at once and say what is missing."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import ray

from lasat_ray.cluster.session import check_free, forget_dead_cluster, worker_resources
from lasat_ray.errors import UsageError, UserError


@pytest.mark.parametrize(
    ("num_workers", "total", "share"),
    [(4, 2.0, 0.47), (1, 2.0, 1.0), (2, 64.0, 1.0), (3, 1.0, 0.31), (19, 2.0, 0.1)],
)
def test_workers_share_cores(num_workers: int, total: float, share: float) -> None:
    assert worker_resources(num_workers, None, False, {"CPU": total}) == {"CPU": share}


def test_gpu_workers_get_one_each() -> None:
    assert worker_resources(2, None, True, {"CPU": 16.0, "GPU": 2.0}) == {"CPU": 1.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("num_workers", "cpus", "gpu", "total", "told"),
    [
        (4, 2.0, False, {"CPU": 2.0}, "4 workers of 2 CPUs need 8 CPUs, Ray has 2"),
        (2, None, True, {"CPU": 2.0, "GPU": 1.0}, "2 workers need 2 GPUs, Ray sees 1"),
        (2, None, True, {"CPU": 2.0}, "2 workers need 2 GPUs, Ray sees 0"),
        (500, None, False, {"CPU": 2.0}, "500 workers of 0.1 CPUs"),
        (21, None, False, {"CPU": 2.0}, "21 workers of 0.1 CPUs need 2.1 CPUs, Ray has 2"),
    ],
)
def test_what_can_never_be_met_is_refused(
    num_workers: int, cpus: float | None, gpu: bool, total: dict[str, float], told: str
) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        worker_resources(num_workers, cpus, gpu, total)
    assert "\n" not in str(caught.value)


@pytest.mark.ray
def test_a_busy_cluster_is_told_instead_of_waited_for(cluster: None) -> None:
    held = ray.util.placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
    ray.get(held.ready(), timeout=120)
    try:
        began = time.perf_counter()
        with pytest.raises(UserError, match=r"2 workers need 1 CPU, 0 are free in this cluster"):
            check_free(2, {"CPU": 0.5})
        assert time.perf_counter() - began < 60
    finally:
        ray.util.remove_placement_group(held)


def test_the_record_of_a_dead_cluster_is_removed(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    record = tmp_path / "ray_current_cluster"
    record.write_text(f"127.0.0.1:{port}")
    assert forget_dead_cluster(record)
    assert not record.exists()
    assert not forget_dead_cluster(record)


def test_the_record_of_a_living_cluster_stays(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        record = tmp_path / "ray_current_cluster"
        record.write_text(f"127.0.0.1:{server.getsockname()[1]}")
        assert not forget_dead_cluster(record)
        assert record.exists()
