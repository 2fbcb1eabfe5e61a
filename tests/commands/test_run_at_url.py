"""``--out URL``: killed at any write of an upload, another machine ends the run with the same bits."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lasat_ray
from lasat_ray import evaluate, train
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.mirror import local_path
from tests.support.struck_command import run_command

from .test_resume_or_start import SETTINGS, equal, weights


@pytest.fixture(scope="module")
def command() -> Callable[..., int]:
    """Runs the command on a machine, killed before a write to the store if asked; its exit status."""

    def run(machine: Path, url: str, strike: int | None = None) -> int:
        machine.mkdir(exist_ok=True)
        words = [*SETTINGS, "--resume-or-start", "--out", url]
        return run_command(words, machine, (url.removeprefix("file://"),), strike, 200)

    return run


@pytest.fixture(scope="module")
def calm(command: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(the machine's folder, the URL) of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("calm")
    url = f"file://{folder}/store/run"
    assert command(folder / "machine", url) == 0, (folder / "machine" / "told.txt").read_text()
    return folder / "machine", url


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_at_any_write_to_the_store_another_machine_ends_with_the_same_bits(calm, command, tmp_path):
    machine, calm_url = calm
    writes = int((machine / "writes.txt").read_text())
    assert writes > 15
    for strike in range(1, writes + 1, 3):  # tests/runs/test_uploads.py takes every step of an upload
        url = f"file://{tmp_path}/{strike}/store/run"
        (tmp_path / str(strike)).mkdir()
        first, second = tmp_path / str(strike) / "first", tmp_path / str(strike) / "second"
        assert command(first, url, strike) == -signal.SIGKILL
        assert command(second, url) == 0, (strike, (second / "told.txt").read_text())
        ours, theirs = second / local_path(url), machine / local_path(calm_url)
        for name in ("last", "best"):
            assert equal(weights(ours, name), weights(theirs, name)), (strike, name)
        lines = [json.loads(line) for line in (ours / "metrics.jsonl").read_text().splitlines()]
        assert [r["round"] for r in lines if r["kind"] == "round"] == list(range(4)), strike
        assert (ours / "summary.json").exists() and not list(ours.rglob("*.tmp")), strike


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["lasat-train", *args])
    return train.main()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def test_a_finished_run_is_told_on_another_machine_and_evaluated(calm, elsewhere, monkeypatch, capsys):
    url = calm[1]
    for how in (["--resume", url], [*SETTINGS, "--resume-or-start", "--out", url]):
        assert run(monkeypatch, *how) == 0
        assert f"uploaded to {url}" in capsys.readouterr().out
    assert RunFolder(local_path(url)).summary() == RunFolder(calm[0] / local_path(url)).summary()
    assert evaluate.main([url, "--attacks", "clean", "--sanity-examples", "0"]) == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ["--out", "{url}"],
            "--out: '{url}' already holds a run; choose another, or continue it with --resume",
        ),
        (["--resume", "{url}2"], "--resume: '{url}2' holds no run; name the URL that --out had"),
        (["--resume-or-start", "--epochs", "3", "--out", "{url}"], "--epochs: 3 is not what "),
        (["--out", "ftp://host/run"], "--out: ftp://host/run: 'ftp' is no protocol that is read"),
        (["--out", "https://host/run"], "--out: 'https://host/run' can only be read"),
        (["--out", "s3://a::file://b"], "is a chain of addresses"),
    ],
)
def test_what_cannot_be_is_one_line(args, told, calm, elsewhere, monkeypatch, capsys):
    words = [word.format(url=calm[1]) for word in args]
    assert run(monkeypatch, *([] if "--resume" in words else SETTINGS), *words) in (1, 2)
    errors = capsys.readouterr().err
    assert told.format(url=calm[1]) in errors and errors.count("\n") == 1


def test_a_run_that_was_stopped_tells_its_url_and_goes_on_there(elsewhere, monkeypatch, capsys):
    """SIGTERM in the first epoch: what was saved is uploaded before the command ends."""
    url = f"memory://{uuid.uuid4().hex}/run"

    class Stop:
        def on_round(self, record):
            if record["round"] == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("lasat_ray.runs.callbacks.load_plugin", lambda *_: Stop)
    assert run(monkeypatch, *SETTINGS, "--out", url, "--callbacks", "x:Stop") == 143
    assert f"continue with --resume {url}\n" in capsys.readouterr().err
    (elsewhere / "runs").rename(elsewhere / "of another machine")
    assert run(monkeypatch, "--resume", url) == 0
    records = (local_path(url) / "metrics.jsonl").read_text().splitlines()
    rounds = [json.loads(line)["round"] for line in records if '"kind": "round"' in line]
    assert rounds == list(range(4))


def test_a_refused_start_leaves_nothing_at_the_url(elsewhere, monkeypatch, capsys):
    url = f"file://{elsewhere}/store"
    assert run(monkeypatch, *SETTINGS, "--dataset", "npz:absent.npz", "--out", url) in (1, 2)
    assert "absent.npz" in capsys.readouterr().err
    assert not [path for path in elsewhere.rglob("*") if path.is_file()]


def test_from_python_too(elsewhere):
    url = f"memory://{uuid.uuid4().hex}/run"
    small = {
        "epochs": 1,
        "data.max_train": 180,
        "data.max_test": 40,
        "evaluation.test_num_steps": (2,),
        "evaluation.val_num_steps": 2,
        "strategy": "fixed",
    }
    first = lasat_ray.train("digits", out=url, progress=False, **small)
    (elsewhere / "runs").rename(elsewhere / "of another machine")
    assert lasat_ray.train(resume=url, progress=False).summary == first.summary
    again = lasat_ray.train("digits", out=url, resume_or_start=True, progress=False, **small)
    assert again.summary == first.summary and again.folder == local_path(url)
    (elsewhere / "runs").rename(elsewhere / "of a third machine")
    assert lasat_ray.load_model(url).card["image_shape"] == [1, 8, 8]
    x = np.zeros((2, 8, 8), dtype=np.uint8)
    assert lasat_ray.predict(url, x).summary == lasat_ray.predict(first.net, x).summary
    found = lasat_ray.evaluate(url, attacks="clean", n_examples=40, sanity_examples=0)
    assert found.summary["n"] == 40


def test_a_comparison_goes_on_elsewhere_with_both_of_its_runs(elsewhere, monkeypatch):
    url = f"memory://{uuid.uuid4().hex}/run"
    words = [*SETTINGS, "--compare", "pgd-at", "--compare-by", "rounds", "--resume-or-start", "--out", url]
    assert run(monkeypatch, *words) == 0
    path = local_path(url)
    told = [RunFolder(place).summary() for place in (path, path / "compare-pgd-at")]
    (elsewhere / "runs").rename(elsewhere / "of another machine")
    assert run(monkeypatch, *words) == 0
    assert [RunFolder(place).summary() for place in (path, path / "compare-pgd-at")] == told
