"""TensorBoard shows every step of a run once, also after a resume, with histograms and pictures."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorboardX
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lasat_ray.cluster.local import train_here
from lasat_ray.runs.events import Events
from lasat_ray.runs.folder import RunFolder
from tests.support.helpers import small_config


def events_of(folder):
    sizes = dict.fromkeys(("scalars", "histograms", "images"), 0)
    events = EventAccumulator(str(folder.path / "tensorboard"), size_guidance=sizes)
    events.Reload()
    return events


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Stopped in the middle of the second epoch, whose first round was never saved, and continued."""
    config = small_config(update_interval=2)
    folder = RunFolder.create(tmp_path_factory.mktemp("events") / "run", config)

    def die_in_round_5(record):
        if record["kind"] == "round" and record["round"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_here(config, folder, device="cpu", listener=die_in_round_5)
    train_here(config, folder, device="cpu")
    return folder


def test_no_step_of_a_resumed_run_stands_twice(resumed):
    events = events_of(resumed)
    for tag in ("round/loss", "round/eps", "round/grad_norm"):
        assert [event.step for event in events.Scalars(tag)] == [0, 1, 2, 3, 4, 5], tag
    assert [event.step for event in events.Scalars("epoch/val_clean_acc")] == [2, 5]
    assert [event.step for event in events.Scalars("final/clean_acc")] == [6]
    assert [event.step for event in events.Histograms("strategy/eps")] == [2, 5]
    assert len(list((resumed.path / "tensorboard").iterdir())) == 2


def test_histograms_count_every_image_under_its_value(resumed):
    counts = resumed_counts(resumed)["eps"]
    value = events_of(resumed).Histograms("strategy/eps")[-1].histogram_value
    assert value.num == 96 and value.bucket == pytest.approx(counts)
    assert value.sum == pytest.approx(sum(v * c for v, c in zip((0.1, 0.2, 0.3), counts, strict=True)))
    below = value.bucket_limit
    assert below[0] == pytest.approx(0.15) and below[1] == pytest.approx(0.25) and below[2] > 0.3


def resumed_counts(folder):
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "epoch"][-1]["options"]


def test_pictures_of_the_probe_are_kept_every_epoch(resumed):
    events = events_of(resumed)
    for name in ("1_x", "2_delta", "3_x_adv"):
        assert [event.step for event in events.Images(f"probe/{name}")] == [2, 5]
        assert events.Images(f"probe/{name}")[0].encoded_image_string.startswith(b"\x89PNG")


HANGING = """
import threading, time
from pathlib import Path
import lasat_ray.runs.events as module
module.CLOSE_S = 0.5
events = module.Events(Path("events"), {})
events.write({"kind": "round", "round": 0, "loss": 1.0})
writer = events._writer.file_writer.event_writer
writer._ev_writer.write_event = lambda event: time.sleep(1000)  # a disk that does not answer
for step in range(8):
    events.write({"kind": "round", "round": step, "loss": 1.0})
try:
    events.close()
except OSError as error:
    print(error.strerror)
"""


def test_a_writer_that_hangs_keeps_no_process_at_its_end(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANGING],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "the thread that writes events does not end\n" and done.returncode == 0, done.stderr


def test_shared_memory_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """The writer's queue lives there, and the system says no name."""

    def refuse(*args, **more):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tensorboardX, "SummaryWriter", refuse)
    monkeypatch.setattr("lasat_ray.runs.events.os.access", lambda place, mode: place != "/dev/shm")
    with pytest.raises(OSError, match="Read-only") as caught:
        Events(tmp_path, {}).write({"kind": "round", "round": 0, "loss": 1.0})
    assert caught.value.filename == "/dev/shm"
