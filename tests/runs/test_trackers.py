"""Trackers get every number once, and nothing they do can stop a run. No network: both are fakes."""

import json
import sys
import types

import pytest

from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.trackers import Trackers
from tests.support.helpers import small_config


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", small_config())


class FakeRun:
    def __init__(self, **asked):
        self.asked, self.logged, self.finished = asked, [], False

    def log(self, numbers, step):
        self.logged.append((step, numbers))

    def finish(self, exit_code):
        self.finished, self.exit_code = True, exit_code


@pytest.fixture
def wandb(monkeypatch):
    made = []

    def init(**asked):
        made.append(FakeRun(**asked))
        return made[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Settings=dict))
    return made


class FakeMlflow:
    """The few calls of mlflow.MlflowClient that are made, over one store."""

    runs: dict = {}  # noqa: RUF012
    metrics: list = []  # noqa: RUF012
    params: dict = {}  # noqa: RUF012

    def get_experiment_by_name(self, name):
        return None if name not in self.runs else types.SimpleNamespace(experiment_id=name)

    def create_experiment(self, name):
        self.runs[name] = []
        return name

    def search_runs(self, places, filter_string, max_results):
        return [run for run in self.runs[places[0]] if run.tags["lasat_ray_id"] in filter_string]

    def create_run(self, place, tags):
        info = types.SimpleNamespace(run_id=f"run{len(self.runs[place])}")
        self.runs[place].append(types.SimpleNamespace(info=info, tags=tags))
        return self.runs[place][-1]

    def log_param(self, run_id, name, value):
        self.params[name] = value

    def update_run(self, run_id, status):
        self.metrics.append((run_id, status))

    def log_metric(self, run_id, name, value, step):
        self.metrics.append((run_id, name, value, step))

    def set_terminated(self, run_id, status):
        self.metrics.append((run_id, status))


@pytest.fixture
def mlflow(monkeypatch):
    FakeMlflow.runs, FakeMlflow.metrics, FakeMlflow.params = {}, [], {}
    monkeypatch.setitem(sys.modules, "mlflow", types.SimpleNamespace(MlflowClient=FakeMlflow))
    return FakeMlflow


RECORDS = [
    {"kind": "round", "round": 0, "epoch": 0.5, "loss": 2.0},
    {"kind": "round", "round": 1, "epoch": 1.0, "loss": 1.5},
    {"kind": "epoch", "round": 2, "epoch": 1, "options": {"eps": [1, 2]}, "val_clean_acc": 0.5},
]


def test_every_number_is_passed_on_once_also_when_heard_again(folder, wandb, mlflow):
    trackers = Trackers(["wandb", "mlflow"], folder, pytest.fail)
    for record in [*RECORDS, *RECORDS[1:]]:
        trackers.on_record(record)
    trackers.close()
    expected = [(0, {"round/loss": 2.0}), (1, {"round/loss": 1.5}), (1, {"epoch/val_clean_acc": 0.5})]
    assert wandb[0].logged == expected and wandb[0].finished
    assert wandb[0].asked["config"]["method"] == "pgd-at" and wandb[0].asked["name"] == "run"
    assert [call[1:] for call in mlflow.metrics[:-1]] == [
        ("round/loss", 2.0, 0),
        ("round/loss", 1.5, 1),
        ("epoch/val_clean_acc", 0.5, 1),
    ]
    assert mlflow.metrics[-1] == ("run0", "FINISHED") and wandb[0].exit_code == 0
    assert mlflow.params["method"] == "pgd-at" and mlflow.params["reward.alpha"] == 1.0


def test_a_resumed_run_goes_on_where_it_was(folder, wandb, mlflow):
    for _ in range(2):
        Trackers(["wandb", "mlflow"], folder, pytest.fail).close()
    assert wandb[0].asked["id"] == wandb[1].asked["id"]
    assert wandb[0].asked["resume"] == "allow"
    assert len(mlflow.runs["lasat-ray"]) == 1
    assert [call[1] for call in mlflow.metrics] == ["FINISHED", "RUNNING", "FINISHED"]


def test_a_run_that_raised_is_marked_so(folder, wandb, mlflow):
    Trackers(["wandb", "mlflow"], folder, pytest.fail).close(failed=True)
    assert wandb[0].exit_code == 1 and mlflow.metrics[-1] == ("run0", "FAILED")


def test_a_tracker_that_is_not_installed_is_one_warning(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    told = []
    trackers = Trackers(["wandb"], folder, told.append)
    trackers.on_record(RECORDS[0])
    trackers.close()
    remedy = "is not installed; pip install '.[wandb]' in a clone of lasat-ray"
    assert told == [f"--log wandb: {remedy}; training goes on without it"]


def test_a_tracker_that_breaks_is_told_once_and_dropped(folder, wandb, mlflow):
    told = []
    trackers = Trackers(["wandb", "mlflow"], folder, told.append)

    def fail(numbers, step):
        raise ConnectionError("no route\nto host")

    trackers.live["wandb"].log = fail
    for record in RECORDS:
        trackers.on_record(record)
    assert len(told) == 1 and "ConnectionError: no route to host" in told[0] and "\n" not in told[0]
    assert len(mlflow.metrics) == 3


def test_without_trackers_nothing_is_written(folder):
    Trackers([], folder, pytest.fail).on_record(RECORDS[0])
    assert not (folder.path / "trackers.json").exists()


def test_the_train_command_passes_records_on(wandb, tmp_path, monkeypatch):
    from lasat_ray.train import main

    arguments = [
        "--recipe",
        "digits",
        "--epochs",
        "1",
        "--data.max-train",
        "160",
        "--data.max-test",
        "20",
        "--log",
        "wandb",
    ]
    monkeypatch.setattr(sys, "argv", ["train", *arguments, "--out", str(tmp_path / "run")])
    assert main() == 0
    told = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    with_figures = [record for record in told if record["kind"] != "data"]
    assert len(wandb[0].logged) == len(with_figures) and wandb[0].finished
