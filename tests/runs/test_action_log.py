"""--log-actions: each rewarded image once, also after a crash; nothing where nobody asked."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from lasat_ray.cli.run_options import RunOptions, check_run
from lasat_ray.cluster.local import train_here
from lasat_ray.config import grid_of
from lasat_ray.errors import UsageError
from lasat_ray.runs.action_log import ActionLog
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.records import records_in
from tests.support.helpers import small_config


def logged(path):
    table = pq.read_table(path / "actions")
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    path = tmp_path_factory.mktemp("straight") / "run"
    train_here(small_config(), RunFolder.create(path, small_config()), device="cpu", log_actions=True)
    return path


def test_rows_are_the_images_of_rewarded_rounds_and_agree_with_the_records(straight):
    config, log = small_config(), logged(straight)
    records = [r for r in records_in(RunFolder(straight).metrics) if r["kind"] == "round" and "reward" in r]
    assert sorted(set(log["round"].tolist())) == [record["round"] for record in records]
    for record in records:
        own = log["round"] == record["round"]
        assert own.sum() == config.batch_size and len(set(log["image"][own].tolist())) == own.sum()
        for name in ("reward", "eps", "num_steps"):
            assert log[name][own].mean() == pytest.approx(record[name], abs=1e-4), name
    grid = grid_of(config)
    assert all(set(log[name].tolist()) <= set(grid[name]) for name in grid)
    assert ((log["propensity"] > 0) & (log["propensity"] <= 1)).all()
    pixels = pq.read_table(straight / "actions")["context"].to_pylist()
    assert {len(seen) for seen in pixels} == {64} and max(map(max, pixels)) > 200


def test_a_resumed_run_has_the_same_log(straight, tmp_path):
    config = small_config()
    folder = RunFolder.create(tmp_path / "run", config)
    train_here(config, folder, device="cpu", log_actions=True, checkpoint_every=1, stop_after=3)
    late = folder.path / "actions" / "rounds-00000003-00000003-worker-0.parquet"
    late.write_bytes(b"of a process that died behind its checkpoint")
    train_here(config, folder, device="cpu")  # goes on as it was begun
    one, other = logged(straight), logged(folder.path)
    order = [np.lexsort((log["image"], log["round"])) for log in (one, other)]
    for name in one:
        assert one[name][order[0]].tolist() == other[name][order[1]].tolist(), name


def test_nobody_asked_nothing_is_written(tmp_path):
    config = small_config(epochs=1)
    folder = RunFolder.create(tmp_path / "run", config)
    train_here(config, folder, device="cpu")
    assert not (folder.path / "actions").exists()


def test_a_strategy_that_earns_nothing_is_refused():
    with pytest.raises(UsageError, match="--log-actions: has no rewards to write with --strategy fixed"):
        check_run(small_config(strategy="fixed"), RunOptions(log_actions=True), ["pgd-at"])


def test_what_was_not_saved_is_forgotten_and_files_of_later_rounds_go(tmp_path):
    log = ActionLog(tmp_path, {"eps": (0.1,)}, 0)
    log.folder.mkdir()
    for name in ("rounds-00000000-00000004-worker-0", "rounds-00000005-00000009-worker-1"):
        (log.folder / f"{name}.parquet").touch()
    log.rewind(5)
    assert [path.name[:15] for path in log.folder.iterdir()] == ["rounds-00000000"]
    log.save()
    assert len(list(log.folder.iterdir())) == 1
