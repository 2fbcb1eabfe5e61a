"""What a failed command removes: what it made itself, file by file, and never a record of a round."""

import os
import signal

import pytest

from lasat_ray.runs.cleanup import undone_if_refused
from lasat_ray.runs.folder import RunFolder
from tests.support.helpers import small_config

ROUND = '{"kind": "round", "round": 0}\n'


def make(path, *, records=""):
    folder = RunFolder.create(path, small_config())
    (path / ".run.lock").touch()
    (path / "tensorboard").mkdir()
    (path / "tensorboard" / "events.out.tfevents.1.x").touch()
    folder.save_last({"round": 0})
    folder.metrics.write_text(records)
    return folder


def names(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_new_folder_goes_with_its_new_parents(tmp_path, error):
    path = tmp_path / "a" / "b" / "run"
    with pytest.raises(error), undone_if_refused(path):  # noqa: PT012 - the block is what fails
        make(path)
        raise error
    assert not (tmp_path / "a").exists()


def test_a_folder_with_a_recorded_round_stays(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(ValueError), undone_if_refused(path):  # noqa: PT012 - the block is what fails
        make(path, records=ROUND)
        kept = names(path)
        raise ValueError
    assert names(path) == kept


def test_what_was_there_before_and_what_is_not_ours_stays(tmp_path):
    path = tmp_path / "run"
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "NOTES.txt").write_text("mine")
    before = names(path)
    with pytest.raises(KeyboardInterrupt), undone_if_refused(path):  # noqa: PT012 - the block is what fails
        (path / "probe.safetensors").touch()
        (path / "checkpoints" / "last.safetensors").touch()
        (path / "thesis.tex").touch()  # not ours, though new
        (path / "figures").mkdir()
        raise KeyboardInterrupt
    assert names(path) == sorted([*before, "thesis.tex", "figures"])
    assert (path / "NOTES.txt").read_text() == "mine"


def test_nothing_is_removed_while_another_process_holds_the_folder(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(ValueError), undone_if_refused(path):  # noqa: PT012 - the block is what fails
        folder = make(path)
        kept = names(path)
        holder = folder.lock()
        holder.__enter__()
        raise ValueError
    assert names(path) == kept
    holder.__exit__(None, None, None)


def test_a_second_interrupt_does_not_stop_the_removing(tmp_path, monkeypatch):
    path, real = tmp_path / "run", os.unlink

    def unlink(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        real(*args, **kwargs)

    with pytest.raises(ValueError), undone_if_refused(path):  # noqa: PT012 - the block is what fails
        make(path)
        monkeypatch.setattr(os, "unlink", unlink)
        raise ValueError
    monkeypatch.undo()
    assert not path.exists()


def test_a_failed_creation_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="No space left"), undone_if_refused(tmp_path / "run"):
        RunFolder.create(tmp_path / "run", small_config())
    assert names(tmp_path) == []


@pytest.mark.parametrize("lacks", [".run.lock", ".writer.lock", "bytes"])
def test_a_disk_without_room_for_a_lock_gets_rid_of_the_folder_all_the_same(tmp_path, monkeypatch, lacks):
    """Inodes for the lock files, or bytes for the name in them."""
    path, opening = tmp_path / "run", os.open

    def full(place, *args, **kwargs):
        if str(place).endswith(lacks):
            raise OSError(28, "No space left on device", str(place))
        return opening(place, *args, **kwargs)

    def no_bytes(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(ValueError), undone_if_refused(path):  # noqa: PT012 - the block is what fails
        RunFolder.create(path, small_config())
        if lacks == "bytes":
            monkeypatch.setattr(os, "pwrite", no_bytes)
        monkeypatch.setattr(os, "open", full)
        raise ValueError
    monkeypatch.undo()
    assert names(tmp_path) == []


def test_a_folder_that_was_there_stays_where_no_lock_can_be_had(tmp_path, monkeypatch):
    path = tmp_path / "run"
    path.mkdir()

    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(ValueError), undone_if_refused(path):  # noqa: PT012 - the block is what fails
        (path / "config.json").touch()
        monkeypatch.setattr(os, "open", full)
        raise ValueError
    monkeypatch.undo()
    assert names(path) == ["config.json"]
