"""Run folders of earlier versions are loaded, evaluated, reported and continued."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from lasat_ray import evaluate, load_model, report, train
from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import BEFORE, config_to_json, read_config

FORMATS = sorted(path for path in (Path(__file__).parent / "formats").iterdir() if path.is_dir())


@pytest.fixture(params=FORMATS, ids=lambda path: path.name)
def run(request, tmp_path, monkeypatch):
    """A run that was stopped in its first epoch, on digits of the package."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(request.param, tmp_path / "run")
    return tmp_path / "run"


def test_it_is_continued_and_then_read_by_every_command(run, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lasat", "--resume", "run"])
    assert train.main() == 0
    summary = json.loads((run / "summary.json").read_text())
    rounds = [
        r for r in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if r["kind"] == "round"
    ]
    assert [r["round"] for r in rounds] == list(range(summary["rounds"]))
    net = load_model(run)
    with torch.no_grad():
        assert net(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert evaluate.main(["run", "--attacks", "clean", "--sanity-examples", "0"]) == 0
    assert report.main(["run", "--no-png", "--out", "page"]) == 0 and Path("page/report.html").is_file()


def test_what_came_later_means_what_was_done_then(run):
    config = json.loads((run / "config.json").read_text())
    assert "objective" not in config["reward"], "the folder is of before"
    read = config_to_json(read_config(run / "config.json"))
    for path, value in BEFORE.items():
        group, _, name = path.rpartition(".")
        assert (read[group] if group else read)[name] == value


def test_every_setting_of_before_is_one():
    settings = config_to_json(TrainConfig())
    for path in BEFORE:
        group, _, name = path.rpartition(".")
        assert name in (settings[group] if group else settings)
