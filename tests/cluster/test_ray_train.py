"""The loop on real Ray Train workers: same numbers, and Ray's pitfalls each closed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch

import lasat_ray.cluster.scaling as scaling
from lasat_ray.cluster.local import train_here
from lasat_ray.cluster.ray_train import train_on_ray
from lasat_ray.errors import UserError
from tests.support.ray_runs import new_folder, tiny, weights

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


def worker_pids() -> list[int]:
    """Processes that run our loop now, by the title Ray gives its train workers."""
    return [
        p.pid
        for p in psutil.process_iter(["cmdline"])
        if "RayTrainWorker" in " ".join(p.info["cmdline"] or [])
    ]


def test_two_workers_compute_what_one_process_computes(tmp_path: Path) -> None:
    config = tiny()
    here, there = new_folder(tmp_path / "here", config), new_folder(tmp_path / "there", config)
    alone = train_here(config, here, device="cpu")
    heard: list[tuple[float, dict[str, Any]]] = []
    together = train_on_ray(
        config, there, num_workers=2, listener=lambda record: heard.append((time.perf_counter(), record))
    )
    for net, state in weights(here).items():
        for name, tensor in state.items():
            torch.testing.assert_close(weights(there)[net][name], tensor, rtol=0, atol=1e-10)
    # The summary is rank 0's return value: Ray's own result.metrics would be None here.
    same = ("clean_acc", "robust_acc_pgd2", "rounds", "n_test", "seed")
    assert {k: together[k] for k in same} == {k: alone[k] for k in same}
    assert together["num_workers"] == 2
    written = [json.loads(line) for line in there.metrics.read_text().splitlines()]
    assert [record for _, record in heard if record["kind"] != "checkpoint"] == written
    assert [r["round"] for r in written if r["kind"] == "round"] == list(range(6))
    assert not (there.path / ".ray").exists()
    # Ray's default poll would cost 2 s at each report(), one an epoch here.
    told = [when for when, record in heard if record["kind"] in ("epoch", "final")]
    assert told[-1] - told[0] < 3.0


def test_a_killed_worker_is_replaced_and_the_weights_are_the_same(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny(), epochs=10)
    calm, hit = new_folder(tmp_path / "calm", config), new_folder(tmp_path / "hit", config)
    expected = train_on_ray(config, calm, num_workers=2)
    killed: list[int] = []

    def kill_once(record: dict[str, Any]) -> None:
        if record["kind"] == "epoch" and record["epoch"] >= 2 and not killed:
            killed.append(worker_pids()[-1])
            os.kill(killed[0], signal.SIGKILL)

    got = train_on_ray(config, hit, num_workers=2, listener=kill_once)
    assert killed, "no worker was there to kill"
    for net, state in weights(calm).items():
        for name, tensor in state.items():
            assert torch.equal(weights(hit)[net][name], tensor), (net, name)
    assert got["clean_acc"] == expected["clean_acc"]
    rounds = [json.loads(line) for line in hit.metrics.read_text().splitlines()]
    assert [r["round"] for r in rounds if r["kind"] == "round"] == list(range(10 * 3))


def test_a_users_mistake_comes_back_once_in_one_line(tmp_path: Path) -> None:
    config = tiny(dataset=f"npz:{tmp_path}/absent.npz")
    folder = new_folder(tmp_path / "run", config)
    with pytest.raises(UserError, match=r"absent\.npz") as caught:
        train_on_ray(config, folder, num_workers=1, max_failures=3)
    assert "\n" not in str(caught.value)


def test_workers_that_cannot_start_fail_within_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look at the free cores and Ray's start others may take them: Ray would retry for ever."""
    monkeypatch.setattr(scaling, "check_free", lambda *_: None)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "3")
    held = ray.util.placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
    ray.get(held.ready(), timeout=120)
    # Ray's own controller needs no cores, so only the workers wait.
    config = tiny()
    folder = new_folder(tmp_path / "run", config)
    began = time.perf_counter()
    try:
        with pytest.raises(UserError, match=r"timed out|timeout") as caught:
            train_on_ray(config, folder, num_workers=2)
    finally:
        ray.util.remove_placement_group(held)
    assert time.perf_counter() - began < 200
    assert str(caught.value).endswith("; start it again"), "there is no checkpoint to resume from"
