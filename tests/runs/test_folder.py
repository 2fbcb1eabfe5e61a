"""A run folder: never overwritten, always with a whole checkpoint, damaged files told in one line."""

import errno
import json

import pytest

from lasat_ray.errors import UsageError, UserError
from lasat_ray.runs import checkpoint
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.folder import RunFolder, fresh_path
from tests.support.helpers import small_config

CONFIG = small_config(seed=7)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", CONFIG, num_workers=3)


def names(folder):
    return sorted(file.stem for file in folder.checkpoints.iterdir())


def test_a_new_folder_holds_the_config_and_where_it_came_from(folder):
    assert RunFolder.open(folder.path).config() == CONFIG
    manifest = folder.read_json("manifest.json")
    assert manifest["seed"] == 7 and manifest["num_workers"] == 3
    assert {"command", "started", "packages", "commit", "dirty", "lasat_ray"} <= set(manifest)
    assert manifest["packages"]["torch"] and folder.summary() is None


def test_an_existing_folder_is_never_written_to(folder):
    before = folder.read_json("manifest.json")
    with pytest.raises(UsageError, match=r"--out: '.*run' already exists; .*--resume"):
        RunFolder.create(folder.path, CONFIG)
    assert folder.read_json("manifest.json") == before


def test_a_start_that_was_cut_short_is_no_run(tmp_path, monkeypatch):
    """config.json comes last: what is there without it is not taken for a run."""
    written, real = [], RunFolder.write_json

    def write_json(folder, name, content):
        written.append(name)
        real(folder, name, content)

    monkeypatch.setattr(RunFolder, "write_json", write_json)
    RunFolder.create(tmp_path / "run", CONFIG)
    assert written == ["manifest.json", "config.json"]
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(UsageError, match="holds no run"):
        RunFolder.open(tmp_path / "run")


def test_what_is_no_run_cannot_be_opened(tmp_path):
    with pytest.raises(UsageError, match=r"--resume: .*holds no run"):
        RunFolder.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--out: cannot make '.*' \(Not a directory\)"):
        RunFolder.create(tmp_path / "file" / "run", CONFIG)


def test_damaged_json_is_told_in_one_line(folder):
    (folder.path / "config.json").write_text('{"recipe": ')
    with pytest.raises(UserError, match=r"config\.json: is not JSON .*; restore it") as caught:
        folder.config()
    assert "\n" not in str(caught.value)


def test_the_newest_two_checkpoints_are_kept(folder):
    assert folder.load_last() == (None, [])
    for round in range(4):
        folder.save_last({"round": round})
        assert folder.load_last() == ({"round": round}, [])
    assert names(folder) == ["last", "previous"]
    assert load_checkpoint(folder.checkpoints / "previous.safetensors") == {"round": 2}


def test_a_damaged_last_gives_way_to_the_one_before_and_is_told(folder):
    for round in range(2):
        folder.save_last({"round": round})
    (folder.checkpoints / "last.safetensors").write_bytes(b"rubbish")
    state, faults = folder.load_last()
    assert state == {"round": 0} and len(faults) == 1
    assert "last.safetensors: not a whole checkpoint" in faults[0] and "\n" not in faults[0]
    (folder.checkpoints / "previous.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="no whole checkpoint is left; ") as caught:
        folder.load_last()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("failing_call", [1, 2, 3])
def test_a_crash_at_any_moment_of_saving_leaves_a_whole_checkpoint(
    folder, monkeypatch, failing_call, damaged
):
    """Call 1 renames the temporary file, 2 and 3 pass the names on; the process dies there."""
    for round in (0, 1):
        folder.save_last({"round": round})
    if damaged:
        (folder.checkpoints / "last.safetensors").write_bytes(b"rubbish")
    calls, real = [], checkpoint.os.replace

    def die_at(source, target):
        calls.append(target)
        if len(calls) == failing_call:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", die_at)
    with pytest.raises(KeyboardInterrupt):
        folder.save_last({"round": 2})
    monkeypatch.undo()
    state, _ = folder.load_last()
    assert state["round"] in ((0 if damaged else 1), 2)
    folder.sweep()
    assert "newest" not in names(folder)
    if (folder.checkpoints / "last.safetensors").exists() and not damaged:
        assert load_checkpoint(folder.checkpoints / "last.safetensors") == state
    folder.save_last({"round": 3})
    assert folder.load_last()[0] == {"round": 3}


def test_a_full_disk_costs_no_checkpoint(folder, monkeypatch):
    for round in (0, 1):
        folder.save_last({"round": round})

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        folder.save_last({"round": 2})
    monkeypatch.undo()
    assert folder.load_last() == ({"round": 1}, []) and names(folder) == ["last", "previous"]


def test_a_disk_that_turns_read_only_costs_no_checkpoint(folder, monkeypatch):
    """As the kernel does it after an error of the disk: what is open may be written, no name changes."""
    for round in (0, 1):
        folder.save_last({"round": round})

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(checkpoint.os, "replace", read_only)
    monkeypatch.setattr(checkpoint.Path, "unlink", read_only)
    with pytest.raises(UserError, match=r"cannot be written \(Read-only file system\); make that disk"):
        folder.save_last({"round": 2})
    monkeypatch.undo()
    folder.sweep()
    assert folder.load_last() == ({"round": 1}, []) and names(folder) == ["last", "previous"]
    assert not list(folder.checkpoints.glob(".*"))


def test_best_is_told_when_there_is_none(folder):
    with pytest.raises(UserError, match=r"best\.safetensors: no such checkpoint"):
        folder.load_best()


def test_a_fresh_path_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = fresh_path(CONFIG)
    assert str(first) == "runs/digits-pgd-at-learned-s7-1" and not first.exists()
    first.mkdir(parents=True)
    assert str(fresh_path(CONFIG)) == "runs/digits-pgd-at-learned-s7-2"


SUMMARY = {"clean_acc": 0.5, "rounds": 3, "n_test": 9, "norm": "linf", "eps": 0.1, "img_per_second": 1.0}


def test_a_summary_reads_back(folder):
    folder.write_json("summary.json", SUMMARY)
    assert folder.summary() == SUMMARY
    assert json.loads((folder.path / "summary.json").read_text()) == SUMMARY


@pytest.mark.parametrize("content", [{"a": 1}, {**SUMMARY, "clean_acc": "good"}, {**SUMMARY, "eps": None}])
def test_a_summary_of_other_content_is_one_line(folder, content):
    folder.write_json("summary.json", content)
    with pytest.raises(UserError, match=r"summary\.json: its \w+ is .*; remove the file and --resume"):
        folder.summary()
