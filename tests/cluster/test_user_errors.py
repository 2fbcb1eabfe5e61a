"""A mistake that only one worker meets ends the others too, and is told once."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import lasat_ray.cluster.user_errors as module
from lasat_ray.cluster.ray_train import train_on_ray
from lasat_ray.cluster.user_errors import UserErrorRelay
from lasat_ray.config import TrainConfig
from lasat_ray.data import Batches, Reading, split_validation
from lasat_ray.errors import UsageError, UserError
from lasat_ray.process_group import ProcessGroup
from lasat_ray.training.tracked_images import WATCHED
from tests.support.ray_runs import new_folder, tiny

from ..data.conftest import encode, load, pixels
from ..data.test_parquet import write


def test_what_all_workers_meet_is_a_value_on_each(tmp_path: Path) -> None:
    user_errors = UserErrorRelay(tmp_path / ".ray")
    with ThreadPoolExecutor() as pool:
        told = list(pool.map(lambda rank: user_errors.publish(rank, 3, UsageError(f"of {rank}")), range(3)))
    assert told == [{"error": f"of {rank}", "status": 2} for rank in range(3)]
    assert user_errors.first() == told[0]


def test_what_one_worker_meets_is_raised_and_known_to_the_next_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TOGETHER_S", 0.2)
    user_errors = UserErrorRelay(tmp_path / ".ray")
    assert user_errors.first() is None
    with pytest.raises(UserError, match="damaged"):
        user_errors.publish(1, 2, UserError("damaged"))
    assert user_errors.first() == {"error": "damaged", "status": 1}


def test_where_nothing_can_be_written_the_error_is_a_value(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert UserErrorRelay(tmp_path / "file").publish(0, 2, UserError("full")) == {
        "error": "full",
        "status": 1,
    }


def met_by_the_second_alone(config: TrainConfig) -> int:
    """A row of the split that the second of two workers trains on in the first epoch, some rounds after its
    start, and that nobody looks at before."""
    images, _ = split_validation(load(config.dataset).train, config.data.val_fraction, config.seed)
    known, _ = images.sample(WATCHED, config.seed)
    batches = Batches(
        images,
        batch_size=config.batch_size,
        seed=config.seed,
        group=ProcessGroup(1, 2),
        device="cpu",
        dtype=torch.float64,
        augment=None,
        reading=Reading(config.data.stream_window, config.data.stream_lanes),
    )
    late = torch.cat([batches.batch(round).index for round in range(10, batches.rounds_per_epoch)])
    rows = images._rows_of_split(late[~torch.isin(late, known)])
    return int(rows.max())


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("max_failures", [0, 3])
def test_a_shard_that_one_worker_finds_damaged_ends_all_of_them(tmp_path: Path, max_failures: int) -> None:
    """Without, the first worker waited for the second until the hang time-out."""
    blobs = [encode(pixels(row, 8, 8, 1)) for row in range(600)]
    labels = [row % 2 for row in range(600)]
    shard = write(tmp_path / "set/train-0.parquet", blobs, labels, row_group_size=10)
    write(tmp_path / "set/test-0.parquet", blobs[:6], labels[:6])
    base = tiny(dataset=f"stream:{tmp_path}/set", model="mlp", strategy_model="mlp")
    data = dataclasses.replace(base.data, max_train=None, val_fraction=0.1, stream_window=40)
    config = dataclasses.replace(base, data=data, batch_size=20)
    row = met_by_the_second_alone(config)
    assert row >= 64, "the first images are looked at by all"
    blobs[row] = blobs[row][:40]
    write(shard, blobs, labels, row_group_size=10)
    folder, began = new_folder(tmp_path / "run", config), time.perf_counter()
    with pytest.raises(UserError, match=rf"^{shard} row {row}: ") as caught:
        train_on_ray(config, folder, num_workers=2, max_failures=max_failures, hang_timeout=280)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - began < 250


def test_the_same_exception_twice_in_one_round_is_a_mistake(tmp_path: Path) -> None:
    user_errors = UserErrorRelay(tmp_path / ".ray")
    assert user_errors.met_again(1, 7, RuntimeError("no value")) is None
    assert user_errors.met_again(1, 8, RuntimeError("no value")) is None  # another round
    assert user_errors.met_again(1, 8, RuntimeError("peer closed")) is None  # another exception
    assert user_errors.met_again(0, 8, RuntimeError("peer closed")) is None  # another worker
    found = user_errors.met_again(1, 8, RuntimeError("peer closed"))
    assert str(found) == "round 8: RuntimeError: peer closed, again after a restart; mend what raises it"
