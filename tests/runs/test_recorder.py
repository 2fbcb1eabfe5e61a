"""metrics.jsonl: means over the global batch, once a round, and a reader that hears every line."""

import dataclasses
import errno
import json
import os
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from lasat_ray.errors import UserError
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.recorder import Recorder, follow
from lasat_ray.types import RoundReport
from tests.support.helpers import small_config


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", small_config())


def report_of(round, **sums):
    return RoundReport(
        round=round,
        global_size=4,
        sums={name: torch.tensor(value, dtype=torch.float64) for name, value in sums.items()},
        scalars={"grad_norm": torch.tensor(float(round), dtype=torch.float32)},
        option_counts=torch.tensor([1.0, 3.0]),
    )


def lines_of(folder):
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def make_recorder(folder, group=None, listener=None, grid=None):
    return Recorder(folder, group or ProcessGroup(), rounds_per_epoch=200, listener=listener, grid=grid)


def test_rounds_become_means_over_the_global_batch(folder):
    heard = []
    recorder = make_recorder(folder, listener=heard.append)
    recorder.add(report_of(0, loss=8.0))
    recorder.add(report_of(1, loss=6.0, reward=-2.0))
    assert not folder.metrics.exists() and heard == []
    recorder.flush()
    recorder.flush()
    expected = [
        {"kind": "round", "round": 0, "epoch": 0.005, "loss": 2.0, "grad_norm": 0.0},
        {"kind": "round", "round": 1, "epoch": 0.01, "loss": 1.5, "reward": -0.5, "grad_norm": 1.0},
    ]
    assert lines_of(folder) == heard == expected
    recorder.close()


def test_equal_values_deviate_by_nothing_whatever_their_rounding(folder):
    """0.1 four times, summed in one order or another: squares of sums and sums of squares differ."""
    recorder = make_recorder(folder)
    for round, rounding in enumerate((0.0, 1e-16, -1e-16)):
        recorder.add(report_of(round, reward=0.4, reward_std=0.04 + rounding))
    recorder.add(report_of(3, reward=0.4, reward_std=0.04 + 4e-6))
    recorder.flush()
    stds = [line["reward_std"] for line in lines_of(folder)]
    assert stds == [0.0, 0.0, 0.0, pytest.approx(1e-3)]
    recorder.close()


def test_quantiles_of_every_field_with_a_choice_come_from_the_options_taken(folder):
    """By numpy on the values that the images were given; a field with one value has none to tell."""
    grid = {"eps": (0.3, 0.1, 0.2), "step_size": (0.1,), "num_steps": (3.0, 4.0)}
    counts = [
        torch.tensor([0.0, 30.0, 10.0, 40.0, 1.0, 39.0]),
        torch.tensor([38.0, 1.0, 1.0, 40.0, 20.0, 20.0]),
    ]
    recorder = make_recorder(folder, grid=grid)
    for round, count in enumerate(counts):
        recorder.add(dataclasses.replace(report_of(round, loss=1.0), option_counts=count))
    recorder.flush()
    for line, count in zip(lines_of(folder), counts, strict=True):
        for name, first in (("eps", 0), ("num_steps", 4)):
            times = count[first : first + len(grid[name])].long().tolist()
            given = np.repeat(grid[name], times)
            wanted = np.quantile(given, [0.05, 0.25, 0.5, 0.75, 0.95], method="inverted_cdf")
            assert [line[f"{name}_p{q:02}"] for q in (5, 25, 50, 75, 95)] == wanted.tolist()
        assert not [name for name in line if name.startswith("step_size_p")]
    recorder.close()


def test_rounds_are_written_twenty_times_an_epoch(folder):
    recorder = make_recorder(folder)
    for round in range(24):
        recorder.add(report_of(round, loss=1.0))
        written = len(lines_of(folder)) if folder.metrics.exists() else 0
        assert written == (round + 1) // 10 * 10
    assert recorder.sum_option_counts() == [24.0, 72.0]
    recorder.close()


def test_only_the_first_worker_writes(folder):
    heard = []
    recorder = make_recorder(folder, ProcessGroup(rank=1, size=2), heard.append)
    recorder.write({"kind": "epoch", "round": 1})
    assert not folder.metrics.exists() and not heard


@pytest.mark.parametrize(
    ("number", "place", "told"),
    [
        (errno.EROFS, "/dev/shm", "/dev/shm: cannot be written (Read-only file system); make that disk"),
        (errno.EMFILE, None, "tensorboard: cannot be written (Too many open files); raise the limit of open"),
        (errno.EIO, None, "tensorboard: cannot be written (Input/output error); free space or make"),
    ],
)
def test_what_the_machine_refuses_is_named_with_its_own_remedy(folder, monkeypatch, number, place, told):
    recorder = make_recorder(folder)

    def refuse(record):
        raise OSError(number, os.strerror(number), place)

    monkeypatch.setattr(recorder.events, "write", refuse)
    recorder.write({"kind": "round", "round": 0})
    with pytest.raises(UserError) as caught:
        recorder.by_first(lambda: None)
    assert told in str(caught.value) and str(caught.value).endswith(", then --resume the run")
    assert len(lines_of(folder)) == 1, "the record itself was written"


def test_rewinding_cuts_where_the_checkpoint_was_taken(folder):
    recorder = make_recorder(folder)
    assert recorder.offset == 0
    recorder.rewind(0)
    for round in range(4):
        recorder.write({"kind": "round", "round": round})
        if round == 1:
            offset = recorder.offset
    recorder.rewind(offset)
    assert recorder.offset == offset and [line["round"] for line in lines_of(folder)] == [0, 1]
    recorder.write({"kind": "round", "round": 2})
    assert [line["round"] for line in lines_of(folder)] == [0, 1, 2]
    recorder.rewind(0)
    assert folder.metrics.read_bytes() == b""
    recorder.close()


def written(folder, rounds):
    recorder = make_recorder(folder)
    for round in range(rounds):
        recorder.write({"kind": "round", "round": round})
    recorder.close()
    return recorder


@pytest.mark.parametrize(("lost", "gap"), [(5, [2, 2]), (40, [1, 2]), (999, [0, 2])])
def test_lines_lost_in_a_crash_leave_whole_lines_and_are_told(folder, lost, gap):
    recorder = written(folder, 3)
    offset = recorder.offset
    with open(folder.metrics, "rb+") as file:
        file.truncate(max(0, offset - lost))
    (warning,) = recorder.rewind(offset, 3)
    assert warning["lost_rounds"] == gap and f"rounds {gap[0]} to 2 are lost" in warning["told"]
    recorder.write(warning)
    recorder.write({"kind": "round", "round": 3})
    assert [r["round"] for r in lines_of(folder) if r["kind"] == "round"] == [*range(gap[0]), 3]
    assert recorder.rewind(recorder.offset, 4) == [], "told once"


def test_a_missing_end_of_line_loses_nothing(folder):
    recorder = written(folder, 3)
    offset = recorder.offset
    os.truncate(folder.metrics, offset - 1)
    assert recorder.rewind(offset, 3) == []
    assert [r["round"] for r in lines_of(folder)] == [0, 1, 2]


def test_zeros_in_place_of_a_line_are_told_and_removed(folder):
    recorder = written(folder, 4)
    content = folder.metrics.read_bytes()
    second = content.index(b"\n") + 1
    folder.metrics.write_bytes(content[:second] + b"\0" * 20 + content[second + 20 :])
    (warning,) = recorder.rewind(len(content), 4)
    assert warning["lost_rounds"] == [1, 1]
    assert [r["round"] for r in lines_of(folder)] == [0, 2, 3]
    # A checkpoint of before, whose offset counts the bytes of the longer file.
    assert [w["lost_rounds"] for w in recorder.rewind(content.index(b"2}") + 3, 3)] == [[1, 1]]
    assert [r["round"] for r in lines_of(folder)] == [0, 2]


class Done(threading.Event):
    """Tells when the follower has taken its place and waits for the first time."""

    def __init__(self):
        super().__init__()
        self.in_place = threading.Event()

    def wait(self, timeout=None):
        self.in_place.set()
        return super().wait(timeout)


@contextmanager
def following(path, heard, poll_s=0.01):
    done = Done()
    thread = threading.Thread(target=follow, args=(path, heard.append, done, poll_s), daemon=True)
    thread.start()
    assert done.in_place.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=10)
    assert not thread.is_alive()


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def append(path, text):
    with open(path, "a") as file:
        file.write(text)


def test_every_record_is_heard_once_and_in_order(tmp_path):
    path, heard = tmp_path / "metrics.jsonl", []
    with following(path, heard):
        for round in range(5):
            append(path, json.dumps({"round": round}) + "\n")
            wait_for(lambda n=round: len(heard) == n + 1)
        append(path, "".join(json.dumps({"round": round}) + "\n" for round in range(5, 300)))
    assert [record["round"] for record in heard] == list(range(300))


def test_what_stood_there_before_is_not_heard(tmp_path):
    path, heard = tmp_path / "metrics.jsonl", []
    append(path, '{"round": 0}\n')
    with following(path, heard):
        time.sleep(0.05)
        append(path, '{"round": 1}\n')
    assert heard == [{"round": 1}]


def test_half_a_line_waits_for_the_other_half(tmp_path):
    path, heard = tmp_path / "metrics.jsonl", []
    with following(path, heard):
        append(path, '{"round": 0}\n{"rou')
        wait_for(lambda: len(heard) == 1)
        time.sleep(0.05)
        append(path, 'nd": 1, "text": "é"}\n{"round": 2')
        wait_for(lambda: len(heard) == 2)
        append(path, "}\n")
        wait_for(lambda: len(heard) == 3)
    assert [record["round"] for record in heard] == [0, 1, 2]


def test_a_restart_that_cuts_the_file_back_is_followed(tmp_path):
    path, heard = tmp_path / "metrics.jsonl", []
    with following(path, heard):
        append(path, '{"round": 0}\n')
        cut = path.stat().st_size
        append(path, '{"round": 1}\n{"round": 2}\n')
        wait_for(lambda: len(heard) == 3)
        with open(path, "rb+") as file:
            file.truncate(cut)
        time.sleep(0.05)
        append(path, '{"round": 1, "again": true}\n')
        wait_for(lambda: len(heard) == 4)
    assert [record["round"] for record in heard] == [0, 1, 2, 1]


def test_the_last_look_comes_after_the_end(tmp_path):
    path, heard = tmp_path / "metrics.jsonl", []
    with following(path, heard, poll_s=60.0):
        append(path, '{"round": 0}\n')
    assert heard == [{"round": 0}]
