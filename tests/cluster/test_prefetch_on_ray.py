"""Streams on Ray: windows decoded by Ray Data, and the weights of one process on two workers."""

from __future__ import annotations

import dataclasses
from itertools import count, islice
from pathlib import Path

import pytest
import torch

from lasat_ray.cluster.local import train_here
from lasat_ray.cluster.prefetch_on_ray import ray_data_prefetch
from lasat_ray.cluster.ray_train import train_on_ray
from lasat_ray.errors import UserError
from tests.support.ray_runs import new_folder, tiny, weights

from ..data.conftest import encode, pixels
from ..data.test_parquet import write

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


def test_results_come_in_order_few_ahead_and_a_mistake_as_it_was(tmp_path: Path) -> None:
    def work(item: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        (tmp_path / str(item[1])).touch()
        if item[1] == 5:
            raise UserError("window 5: is damaged; replace it")
        return torch.tensor(item), torch.full((3,), item[1], dtype=torch.uint8)

    results = ray_data_prefetch(work, ((1, n) for n in count()))
    for n, (item, filled) in enumerate(islice(results, 5)):
        assert item.tolist() == [1, n] and filled.tolist() == [n] * 3 and filled.dtype == torch.uint8
        assert len(list(tmp_path.iterdir())) <= n + 4
    with pytest.raises(UserError, match=r"^window 5: is damaged; replace it$"):
        next(results)


def test_two_workers_stream_what_one_process_streams(tmp_path: Path) -> None:
    blobs = [encode(pixels(row, 8, 8, 1)) for row in range(120)]
    write(tmp_path / "set/train-0.parquet", blobs, [row % 2 for row in range(120)], row_group_size=10)
    write(tmp_path / "set/test-0.parquet", blobs[:6], [0, 1] * 3)
    base = tiny(dataset=f"stream:{tmp_path}/set", model="mlp", strategy_model="mlp")
    data = dataclasses.replace(base.data, max_train=None, val_fraction=0.1, stream_window=40)
    config = dataclasses.replace(base, data=data, batch_size=20)
    here, there = new_folder(tmp_path / "here", config), new_folder(tmp_path / "there", config)
    alone = train_here(config, here, device="cpu")
    together = train_on_ray(config, there, num_workers=2)
    assert together["rounds"] == alone["rounds"] == 10
    for net, state in weights(here).items():
        for name, tensor in state.items():
            torch.testing.assert_close(weights(there)[net][name], tensor, rtol=0, atol=1e-10)
