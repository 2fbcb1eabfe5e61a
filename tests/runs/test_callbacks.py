"""Callbacks: what they hear and in which order, and how their mistakes are told."""

from __future__ import annotations

import json
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest

import lasat_ray
from lasat_ray import UsageError, UserError
from lasat_ray.errors import UserError as Told
from lasat_ray.runs.callbacks import Callbacks, find_callbacks, kept_error
from lasat_ray.runs.recorder import follow
from lasat_ray.train import main

QUICK = {
    "epochs": 2,
    "batch_size": 64,
    "strategy": "fixed",
    "data.max_train": 128,
    "data.max_test": 20,
    "attack": {"num_steps": 1},
    "evaluation": {"val_num_steps": 1, "test_num_steps": (1,)},
}


class Heard:
    """Everything, in order."""

    def __init__(self):
        self.told = []

    def on_start(self, folder, config):
        self.told.append(("start", folder, config.epochs))

    def on_round(self, record):
        self.told.append(("round", record["round"]))

    def on_epoch(self, record):
        self.told.append(("epoch", record["epoch"]))

    def on_checkpoint(self, record):
        assert Path(record["path"]).is_file()
        self.told.append(("checkpoint", record["epoch"]))

    def on_end(self, record):
        self.told.append(("end", record["clean_acc"]))


def test_a_callback_hears_the_run_in_its_order(tmp_path):
    heard = Heard()
    run = lasat_ray.train("digits", out=tmp_path / "run", callbacks=[heard], progress=False, **QUICK)
    order = [told for told in heard.told if told[0] != "round"]
    assert order == [
        ("start", tmp_path / "run", 2),
        ("epoch", 1),
        ("checkpoint", 1),
        ("epoch", 2),
        ("checkpoint", 2),
        ("end", run.summary["clean_acc"]),
    ]
    rounds = [n for kind, n in ((told[0], told[1]) for told in heard.told) if kind == "round"]
    assert rounds == [record["round"] for record in run.records("round")]
    assert {record["kind"] for record in run.records()} & {"checkpoint"} == set()


def test_what_a_callback_does_to_a_record_changes_nothing(tmp_path):
    class Vandal:
        def on_record(self, record):
            record.clear()

        def on_epoch(self, record):
            record["epoch"] = -1

    plain = lasat_ray.train("digits", out=tmp_path / "a", progress=False, **QUICK)
    beside = lasat_ray.train(
        "digits", out=tmp_path / "b", callbacks=[Vandal(), Heard()], progress=False, **QUICK
    )
    assert plain.accuracies == beside.accuracies
    timed = ("train_seconds", "img_per_second")
    for one, other in zip(plain.records("epoch"), beside.records("epoch"), strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {
            k: v for k, v in other.items() if k not in timed
        }


class Breaks:
    def on_epoch(self, record):
        raise ZeroDivisionError("no epochs\nhere")


def test_an_exception_is_one_line_that_names_the_callback(tmp_path):
    with pytest.raises(
        UserError, match=r"^callback Breaks: on_epoch raised ZeroDivisionError: no epochs here; "
    ):
        lasat_ray.train("digits", out=tmp_path / "run", callbacks=[Breaks()], progress=False, **QUICK)
    assert lasat_ray.train(resume=tmp_path / "run", progress=False).summary["rounds"] > 0


def test_the_command_takes_a_class_by_its_name(tmp_path, monkeypatch, capsys):
    module = types.ModuleType("callbacks_of_a_user")
    module.Heard, module.Breaks = Heard, Breaks
    monkeypatch.setitem(sys.modules, "callbacks_of_a_user", module)
    words = ["--epochs", "1", "--strategy", "fixed", "--batch-size", "32", "--data.max-train", "64"]
    monkeypatch.setattr(sys, "argv", ["train", *words, "--out", str(tmp_path / "run")])
    sys.argv += [
        "--recipe",
        "digits",
        "--callbacks",
        "callbacks_of_a_user:Heard",
        "callbacks_of_a_user:Breaks",
    ]
    assert main() == 1
    line = capsys.readouterr().err
    assert line.startswith("lasat-ray: error: callback callbacks_of_a_user:Breaks: on_epoch raised")
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["no_such_module:Class"], "--callbacks: cannot import 'no_such_module'"),
        (["sys"], "--callbacks: 'sys' is not module:name"),
        (["sys:path"], "--callbacks: sys:path has none of on_start, on_round"),
        (
            [types.SimpleNamespace(on_epochs=print)],
            "--callbacks: SimpleNamespace has on_epochs, which nothing",
        ),
        ([Callbacks], "--callbacks: Callbacks cannot be made (TypeError"),
    ],
)
def test_what_is_no_callback_is_one_line(given, line):
    with pytest.raises(UsageError) as caught:
        find_callbacks(given)
    assert str(caught.value).startswith(line)


def test_a_refused_callback_leaves_no_folder(tmp_path):
    with pytest.raises(UsageError, match=r"^callbacks: Odd has on_epoch_end, which nothing calls"):
        lasat_ray.train("digits", out=tmp_path / "run", callbacks=[type("Odd", (), {"on_epoch_end": print})])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("poll_s", [0.001, 0.5], ids=["in many looks", "in the last look"])
def test_a_follower_tells_checkpoints_between_the_records_that_they_were_written_between(tmp_path, poll_s):
    metrics, beside, done = tmp_path / "metrics", tmp_path / "told", threading.Event()
    metrics.touch()
    beside.touch()
    told: list[dict[str, Any]] = []
    thread = threading.Thread(
        target=follow, args=(metrics, told.append, done, poll_s), kwargs={"beside": beside}, daemon=True
    )
    thread.start()
    time.sleep(0.1)  # it begins where the files end
    written: list[dict[str, Any]] = []
    for n in range(50):
        written += [{"kind": "round", "round": n}, {"kind": "epoch", "round": n + 1}]
        written += [{"kind": "checkpoint", "round": n + 1}]
    written += [{"kind": "final", "round": 50}]
    for record in written:
        with open(beside if record["kind"] == "checkpoint" else metrics, "a") as lines:
            lines.write(json.dumps(record) + "\n")
    done.set()
    thread.join()
    assert told == written


def test_an_error_in_a_listening_thread_stops_the_run_and_is_raised_at_its_end():
    stopped: list[int] = []

    def mistaken():
        raise Told("mine")

    def block():
        with kept_error(lambda: stopped.append(1)) as run:
            run(mistaken)
            run(lambda: stopped.append(2))
            raise RuntimeError("what the workers said when they were stopped")

    with pytest.raises(Told, match="mine"):
        block()
    assert stopped == [1]


@pytest.mark.ray
def test_workers_records_reach_a_callback_and_its_error_ends_them(tmp_path):
    heard = Heard()
    out = tmp_path / "run"
    lasat_ray.train("digits", out=out, callbacks=[heard], num_workers=1, progress=False, **QUICK)
    order = [told[0] for told in heard.told if told[0] != "round"]
    assert order == ["start", "epoch", "checkpoint", "epoch", "checkpoint", "end"]
    with pytest.raises(UserError, match=r"^callback Breaks: on_epoch raised ZeroDivisionError"):
        lasat_ray.train(
            "digits", out=tmp_path / "b", callbacks=[Breaks], num_workers=1, progress=False, **QUICK
        )
