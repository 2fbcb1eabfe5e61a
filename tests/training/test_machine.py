"""A run that goes on elsewhere says what decides its bits there, and keeps its threads."""

import json

import pytest
import torch

from lasat_ray.cluster.local import train_here
from lasat_ray.reporting.write import csv_of
from lasat_ray.runs.checkpoint import load_checkpoint, save_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.machine import differences, machine_state
from tests.support.helpers import small_config


@pytest.fixture
def stopped(tmp_path):
    folder = RunFolder.create(tmp_path / "run", small_config())
    train_here(folder.config(), folder, device="cpu", stop_after=2)
    return folder


def change(folder, **machine):
    path = folder.checkpoints / "last.safetensors"
    state = load_checkpoint(path)
    state["machine"] |= machine
    save_checkpoint(path, state)


def warnings(folder):
    lines = map(json.loads, folder.metrics.read_text().splitlines())
    return [line["told"] for line in lines if line["kind"] == "warning"]


def test_the_same_machine_is_no_warning(stopped):
    train_here(stopped.config(), stopped, device="cpu", stop_after=3)
    assert warnings(stopped) == []


def test_another_version_is_told_once_in_the_records(stopped):
    change(stopped, torch="1.0", instructions="OLD")
    train_here(stopped.config(), stopped, device="cpu", stop_after=3)
    (told,) = warnings(stopped)
    assert f"torch 1.0 -> {torch.__version__}" in told and "instructions OLD -> " in told
    train_here(stopped.config(), stopped, device="cpu", stop_after=4)
    assert len(warnings(stopped)) == 1


def test_the_number_of_threads_is_kept(stopped):
    before = torch.get_num_threads()
    change(stopped, threads=before + 1)
    try:
        train_here(stopped.config(), stopped, device="cpu", stop_after=3)
        assert torch.get_num_threads() == before + 1 and warnings(stopped) == []
        assert load_checkpoint(stopped.checkpoints / "last.safetensors")["machine"]["threads"] == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_killed_before_its_first_checkpoint_begins_anew_with_its_threads(tmp_path, workers):
    """Not where another number of workers splits the sums anew anyway."""

    class Killed(BaseException):
        pass

    def kill(record):
        if record["kind"] == "round" and record["round"] == 1:
            raise Killed

    before = torch.get_num_threads()
    folder = RunFolder.create(tmp_path / "run", small_config())
    try:
        torch.set_num_threads(before + 1)
        with pytest.raises(Killed):
            train_here(folder.config(), folder, device="cpu", listener=kill)
        assert not folder.has_checkpoint()
        manifest = folder.read_json("manifest.json")
        assert (manifest["machine"]["threads"], manifest["machine"]["workers"]) == (before + 1, 1)
        folder.write_json(
            "manifest.json", {**manifest, "machine": {**manifest["machine"], "workers": workers}}
        )
        torch.set_num_threads(before)
        train_here(folder.config(), folder, device="cpu", stop_after=2)
        kept = before + (workers == 1)
        assert torch.get_num_threads() == kept
        assert load_checkpoint(folder.checkpoints / "last.safetensors")["machine"]["threads"] == kept
    finally:
        torch.set_num_threads(before)


def test_a_checkpoint_that_does_not_say_is_no_difference():
    here = machine_state(torch.device("cpu"))
    assert differences(None, here) is None and differences({}, here) is None


def test_records_without_a_checkpoint_are_not_trained_over(stopped):
    train_here(stopped.config(), stopped, device="cpu", stop_after=5)
    for path in stopped.checkpoints.iterdir():
        path.unlink()
    before = stopped.metrics.read_bytes()
    with pytest.raises(ValueError, match="holds no checkpoint, but records reach round 4; put last"):
        train_here(stopped.config(), stopped, device="cpu")
    assert stopped.metrics.read_bytes() == before


def test_no_cell_of_a_csv_is_a_formula():
    rows = [{"class": word} for word in ("=cmd()", "@x", "+1+cmd|' /C calc'!A0", "-0.5", "-1.2 ± 0.3", "cat")]
    lines = csv_of([*rows, {"class": -1.0}]).decode().splitlines()
    assert [line.strip('"') for line in lines[1:]] == [
        *("'=cmd()", "'@x", "'+1+cmd|' /C calc'!A0"),
        *("-0.5", "-1.2 ± 0.3", "cat", "-1.0"),
    ]
