"""The train command in this process: what it writes, prints and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lasat_ray import train

TINY = [
    *("--recipe", "digits"),
    *("--epochs", "2", "--batch-size", "64", "--data.max-train", "160", "--data.max-test", "40"),
    *("--attack.grid", "eps=0.1,0.2 num_steps=1..3", "--attack.num-steps", "2"),
    *("--reward.ref-num-steps", "2", "--evaluation.val-num-steps", "2", "--evaluation.test-num-steps", "2"),
]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["lasat-train", *args])
    return train.main()


def test_a_run_leaves_a_folder_that_explains_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, *TINY) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "digits-pgd-at-learned-s0-1"
    expected = {"config.json", "manifest.json", "metrics.jsonl", "summary.json", "checkpoints", "tensorboard"}
    expected |= {"probe.safetensors", ".run.lock"}
    assert {path.name for path in folder.iterdir()} == expected
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"best.safetensors", "last.safetensors", "previous.safetensors"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["command"][1:] == TINY
    assert manifest["packages"]["torch"]
    summary = json.loads((folder / "summary.json").read_text())
    out = capsys.readouterr().out
    assert f"{100 * summary['clean_acc']:.1f} %" in out
    assert f"{100 * summary['robust_acc_pgd2']:.1f} %" in out
    # Not a terminal: a line an epoch, no control characters.
    assert len(re.findall(r"^pgd-at learned: epoch +\d/2, ", out, flags=re.M)) == 2
    assert "\x1b" not in out


@pytest.mark.parametrize("by", ["passes", "rounds", "seconds"])
def test_a_rival_is_trained_for_an_equal_amount(
    by: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chosen = () if by == "passes" else ("--compare-by", by)
    assert run(monkeypatch, *TINY, "--compare", "pgd-at", *chosen, "--out", "both") == 0
    ours = json.loads((tmp_path / "both" / "summary.json").read_text())
    rival = json.loads((tmp_path / "both" / "compare-pgd-at" / "summary.json").read_text())
    assert (ours["strategy"], rival["strategy"]) == ("learned", "fixed")
    if by == "rounds":
        assert ours["rounds"] == rival["rounds"] == 4
    if by == "passes":
        a_round = rival["passes_per_image"] / rival["rounds"]
        assert abs(ours["passes_per_image"] - rival["passes_per_image"]) <= a_round
        assert rival["rounds"] > ours["rounds"], "a round of the fixed attack has no reward to pay for"
    if by == "seconds":
        assert rival["train_seconds"] == pytest.approx(ours["train_seconds"], rel=0.9)
    out = capsys.readouterr().out
    assert "pgd-at learned" in out and "pgd-at fixed" in out
    before = (tmp_path / "both" / "compare-pgd-at" / "metrics.jsonl").read_bytes()
    assert run(monkeypatch, "--resume", "both", "--compare", "pgd-at", *chosen) == 0
    assert (tmp_path / "both" / "compare-pgd-at" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("spelled", "told"), [("--budget", "''"), ("--budget=50", "'50'"), ("--budget=5 hours", "'5 hours'")]
)
def test_a_budget_names_its_unit(
    spelled: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--dry-run", spelled) == 2
    assert f"--budget: {told} is no budget; write 350passes or 20minutes" in capsys.readouterr().err


def test_a_budget_is_short_for_its_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--dry-run", "--budget", "350passes") == 0
    assert "--budget-passes 350.0" in capsys.readouterr().out
    assert run(monkeypatch, "--dry-run", "--budget=2.5minutes") == 0
    assert "--budget-minutes 2.5" in capsys.readouterr().out


def test_a_finished_run_resumes_to_its_own_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, *TINY, "--out", "once") == 0
    before = (tmp_path / "once" / "metrics.jsonl").read_bytes()
    assert run(monkeypatch, "--resume", "once") == 0
    assert (tmp_path / "once" / "metrics.jsonl").read_bytes() == before


def test_an_existing_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "thesis.txt").write_text("years of work")
    assert run(monkeypatch, *TINY, "--out", "here") == 2
    told = capsys.readouterr().err
    assert told.startswith("lasat-ray: error: --out: 'here' already exists")
    assert len(told.splitlines()) == 1
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("args", "status", "told"),
    [
        (["--method", "pgdat"], 2, "--method: 'pgdat' is unknown"),
        (["--learner", "nowhere:Class"], 2, "--learner: cannot import 'nowhere'"),
        (["--model", "resnet19"], 2, "--model: 'resnet19' is unknown"),
        (["--model", "json:dumps"], 1, "--model: 'json:dumps'"),
        (["--dataset", "npz:absent.npz"], 1, "absent.npz"),
        (["--dataset", "imagefolder:absent"], 1, "absent"),
        (["--dataset", "parquet:absent"], 1, "absent"),
        (["--batch-size", "5000"], 2, "--batch-size"),
        (["--num-workers", "300"], 2, "--batch-size: 64 images cannot feed 300 workers"),
        (["--device", "cuda"], 2, "--device: cuda is not here"),
        (["--resume", "absent"], 1, "absent"),
        (["--compare", "nothing"], 2, "--compare: 'nothing' is unknown"),
        (["--attack.grid", "eps=2"], 2, "--attack.grid"),
        (["--epochs", "0"], 2, "--epochs: 0 is out of range"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_trace(
    args: list[str],
    status: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    import torch

    if "cuda" in args and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    given = [] if "--resume" in args else TINY
    assert run(monkeypatch, *given, *args) == status
    err = capsys.readouterr().err
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [] or [p.name for p in tmp_path.iterdir()] == ["runs"]
    assert not list(tmp_path.rglob("*.json*"))


def test_other_settings_cannot_join_a_resumed_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *TINY, "--out", "once") == 0
    assert run(monkeypatch, "--resume", "once", "--epochs", "9") == 2
    assert "--resume: a resumed run keeps its settings" in capsys.readouterr().err
