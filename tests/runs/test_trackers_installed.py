"""The real wandb and mlflow, where they are installed: everything stays in a folder, no network."""

from __future__ import annotations

import pytest

from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.trackers import Trackers
from tests.support.helpers import small_config

RECORDS = [
    {"kind": "round", "round": 0, "epoch": 0.5, "loss": 2.0},
    {"kind": "round", "round": 1, "epoch": 1.0, "loss": 1.5},
    {"kind": "epoch", "round": 2, "epoch": 1, "val_robust_acc_pgd10": 0.5},
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where both put their files
    return RunFolder.create(tmp_path / "run", small_config())


def play(name, folder, records, warn=pytest.fail, failed=False):
    trackers = Trackers([name], folder, warn)
    for record in records:
        trackers.on_record(record)
    trackers.close(failed)


def test_wandb_offline_keeps_every_number_and_goes_on_after_a_resume(folder, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    files = []
    for part, records in (("first", RECORDS[:2]), ("second", RECORDS[2:])):
        (tmp_path / part).mkdir()
        monkeypatch.setenv("WANDB_DIR", str(tmp_path / part))  # its folders are named by the second
        play("wandb", folder, records)
        wandb.teardown()  # as the end of a process does
        files += (tmp_path / part).glob("wandb/offline-run-*/run-*.wandb")
    assert len(files) == 2 and files[0].name == files[1].name  # one run in two pieces
    assert b"round/loss" in files[0].read_bytes()
    assert b"epoch/val_robust_acc_pgd10" in files[1].read_bytes()


@pytest.fixture
def mlflow_client(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # without it MLflow 3 wants a database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    return mlflow.MlflowClient()


def test_mlflow_keeps_settings_and_numbers_and_goes_on_after_a_resume(folder, mlflow_client):
    play("mlflow", folder, RECORDS[:2], failed=True)
    place = mlflow_client.get_experiment_by_name("lasat-ray").experiment_id
    (run,) = mlflow_client.search_runs([place])
    assert run.info.status == "FAILED"
    play("mlflow", folder, RECORDS[2:])
    (run,) = mlflow_client.search_runs([place])
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    losses = mlflow_client.get_metric_history(run.info.run_id, "round/loss")
    assert [(point.step, point.value) for point in losses] == [(0, 2.0), (1, 1.5)]
    assert run.data.metrics["epoch/val_robust_acc_pgd10"] == 0.5
    assert run.data.params["method"] == "pgd-at" and run.data.params["attack.num_steps"] == "2"


def test_an_mlflow_that_refuses_is_one_warning(folder, mlflow_client, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuchstore://nowhere")
    told = []
    play("mlflow", folder, RECORDS, warn=told.append)
    (line,) = told
    assert "--log mlflow: failed" in line and line.endswith("training goes on without it")
