"""Power fails after any write: the promised checkpoint is there, and no record it counts on is lost."""

import json
import random

import pytest

from lasat_ray.cluster.local import train_here
from lasat_ray.runs import recorder as recorder_module
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.records import cut_back
from tests.support.crash_disk import CrashDisk
from tests.support.helpers import small_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs on a watched disk; a mark for every checkpoint that ``save_last`` has finished."""
    root = tmp_path_factory.mktemp("disk")
    disk = CrashDisk(root)
    config = small_config(epochs=2)
    real = RunFolder.save_last

    def save_last(folder, tree):
        real(folder, tree)
        disk.mark(tree["round"])

    with pytest.MonkeyPatch.context() as patch, disk.recording():
        patch.setattr(RunFolder, "save_last", save_last)
        folder = RunFolder.create(root / "run", config)
        train_here(config, folder, device="cpu")
    return disk


def states(count):
    """Nothing that was unsafe, all of it, and two random parts."""
    return [False, True, *(random.Random(f"{count} {seed}") for seed in range(2))]


def check(disk, count, where):
    promised = max((round for mark, round in disk.marks if mark <= count), default=None)
    folder = RunFolder(where / "run")
    state, _ = folder.load_last()
    if state is None:
        assert promised is None
        return
    assert promised is None or state["round"] >= promised
    told = cut_back(folder.metrics, state["metrics_offset"], state["round"])
    assert told == []
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [r["round"] for r in lines if r["kind"] == "round"] == list(range(state["round"]))


def test_every_prefix_of_the_writes_leaves_what_was_promised(trained, tmp_path):
    assert len(trained.marks) >= 2 and len(trained.log) > 30
    for count in range(len(trained.log) + 1):
        for number, keep in enumerate(states(count)):
            where = tmp_path / f"{count}-{number}"
            trained.left_after(count, where, keep)
            if (where / "run" / "checkpoints").exists():
                check(trained, count, where)


def test_a_finished_run_has_its_summary_and_all_records(trained, tmp_path):
    trained.left_after(len(trained.log), tmp_path / "all", False)
    folder = RunFolder(tmp_path / "all" / "run")
    rounds = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert folder.summary() is not None and rounds[-1]["kind"] == "final"
    assert folder.config() == small_config(epochs=2) and folder.load_best()


def test_records_that_are_not_synced_would_be_noticed(tmp_path, monkeypatch):
    """The disk is a judge: without the sync before a checkpoint the same checks fail."""
    monkeypatch.setattr(recorder_module, "sync", lambda path: None)
    disk = CrashDisk(tmp_path / "disk")
    disk.root.mkdir()
    config = small_config(epochs=1)
    with disk.recording():
        train_here(config, RunFolder.create(disk.root / "run", config), device="cpu")
    disk.left_after(len(disk.log), tmp_path / "left", False)
    with pytest.raises(AssertionError):
        check(disk, len(disk.log), tmp_path / "left")
