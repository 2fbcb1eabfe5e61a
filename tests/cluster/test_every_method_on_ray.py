"""Every method on Ray Train workers, one and four of them: the same nets, in float64.

Groups of two are in tests/methods, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from lasat_ray.cluster.session import worker_resources
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.folder import RunFolder
from tests.support.method_runs import DISTINCT, assert_same_nets, run_config, trainer_in, write_teacher

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]
SIZES = (1, 4)


def meet(path: Path, name: str, rank: int, size: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{path}/meet-{name}", rank=rank, world_size=size)


def train_all(job: dict[str, Any]) -> dict[str, str]:
    """One worker of the four: its part in every world that it belongs to. Starting a worker group
    costs more than all rounds, so one serves all sizes."""
    path, rank = Path(job["path"]), ray.train.get_context().get_world_rank()
    torch.set_num_threads(1)
    dist.destroy_process_group()  # Ray's own, of all four
    for size in SIZES:
        if rank >= size:
            continue
        meet(path, f"size-{size}", rank, size)
        for name in DISTINCT:
            config = run_config(name, job["teacher"], model="small_cnn")
            trainer_in(path / f"{name}-{size}", config, ProcessGroup(rank, size)).run(stop_after=3)
        dist.destroy_process_group()
    meet(path, "end", rank, max(SIZES))  # what Ray takes down at the end
    return {"done": ", ".join(DISTINCT)}


def test_four_workers_train_the_net_that_one_trains(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher.safetensors")
    for name in DISTINCT:
        for size in SIZES:
            RunFolder.create(tmp_path / f"{name}-{size}", run_config(name, teacher, model="small_cnn"))
    trainer = ray.train.torch.TorchTrainer(
        train_all,
        train_loop_config={"path": str(tmp_path), "teacher": teacher},
        scaling_config=ray.train.ScalingConfig(
            num_workers=max(SIZES), resources_per_worker=worker_resources(max(SIZES), None, False)
        ),
        run_config=ray.train.RunConfig(
            storage_path=str(tmp_path / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )
    assert trainer.fit().return_value == {"done": ", ".join(DISTINCT)}
    for name in DISTINCT:
        for size in SIZES[1:]:
            assert_same_nets(tmp_path / f"{name}-1", tmp_path / f"{name}-{size}", f"{name} of {size}")
