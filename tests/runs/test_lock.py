"""One run a folder, whoever dies; and SIGTERM, a hang, a disk that takes no more."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from lasat_ray.cluster.local import train_here
from lasat_ray.errors import UserError
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.lock import InUse, locked
from lasat_ray.training.stopping import Stopped
from lasat_ray.training.watchdog import Watchdog
from tests.support.helpers import small_config

FORK = multiprocessing.get_context("fork")


def hold(path):
    with locked(path):
        path.with_name("held").touch()
        time.sleep(600)


def test_a_held_folder_is_refused_with_its_holder_and_free_once_that_is_killed(tmp_path):
    folder = RunFolder.create(tmp_path / "run", small_config())
    holder = FORK.Process(target=hold, args=(folder.path / ".run.lock",))
    holder.start()
    try:
        while not (folder.path / "held").exists():
            time.sleep(0.01)
        with pytest.raises(InUse, match=rf"process {holder.pid} on {os.uname().nodename}") as caught:
            train_here(folder.config(), folder, device="cpu")
        assert str(folder.path) in str(caught.value) and "\n" not in str(caught.value)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    with folder.lock():
        pass


def test_sigterm_saves_the_round_and_the_run_goes_on_from_there(tmp_path):
    folder = RunFolder.create(tmp_path / "run", small_config(model="mlp", strategy_model="mlp"))

    def ask(record):
        if record.get("round") == 3 and record["kind"] == "round":
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="--resume") as caught:
        train_here(folder.config(), folder, device="cpu", listener=ask)
    assert caught.value.status == 143 and signal.getsignal(signal.SIGTERM) is before
    assert folder.load_last()[0]["round"] in (4, 5)
    assert train_here(folder.config(), folder, device="cpu")["rounds"] == 6


def hang():
    with Watchdog(0.5).watching():
        time.sleep(600)


def test_a_process_that_hangs_ends(capfd):
    process = FORK.Process(target=hang)
    process.start()
    process.join(60)
    assert process.exitcode == 1
    assert "in hang" in capfd.readouterr().err


def test_records_that_cannot_be_written_end_the_run_in_one_line(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "run", small_config(model="mlp", strategy_model="mlp"))
    monkeypatch.setattr(RunFolder, "metrics", property(lambda self: self.path / "no" / "metrics.jsonl"))
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written") as caught:
        train_here(folder.config(), folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_what_a_killed_writer_left_is_swept_away(tmp_path):
    folder = RunFolder.create(tmp_path / "run", small_config(model="mlp", strategy_model="mlp"))
    (folder.checkpoints / ".last.safetensors.1.tmp").write_bytes(b"half")
    train_here(folder.config(), folder, device="cpu", stop_after=1)
    assert not list(folder.path.rglob("*.tmp"))
