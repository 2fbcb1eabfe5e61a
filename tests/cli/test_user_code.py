"""Every command that runs somebody's code, and what that code may raise: one line with its name."""

import importlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from lasat_ray import train
from tests.support.commands import MODULES
from tests.support.helpers import small_config
from tests.support.odd_errors import KINDS, ODD, Armed

NAME = "odd_errors"
CODE = f"tests.support.{NAME}"
TINY = ["--recipe", "digits", "--epochs", "1", "--batch-size", "32", "--data.max-train", "160"]
TINY += ["--strategy", "fixed", "--attack.num-steps", "1", "--evaluation.val-num-steps", "1"]
TINY += ["--evaluation.test-num-steps", "1", "--data.max-test", "40"]
WORDS = {
    "lasat_ray.train": [[*TINY, "--callbacks", f"{CODE}:Callback", "--out", "trained"]],
    "lasat_ray.evaluate": [
        ["RUN", "--trust", "--attacks", "clean", "--out", "e"],
        ["RUN", "--trust", "--attacks", f"{CODE}:attack", "--out", "e"],
    ],
    "lasat_ray.explain": [["RUN", "0", "--trust", "--out", "e.png"]],
    "lasat_ray.export": [
        ["RUN", "--trust", "--format", format, "--out", "e"]
        for format in ("torch-export", "safetensors", "huggingface")
    ],
    "lasat_ray.predict": [["RUN", "image.png", "--trust", "--out", "p.csv"]],
    "lasat_ray.report": [["RUN", "--trust", "--out", "r", "--no-png"]],
}
NO_CODE = {"lasat_ray.leaderboard": "reads evaluations alone"}
IN_TRIALS = {name for name in MODULES if ".tune." in name}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose net is somebody's code."""
    folder = tmp_path_factory.mktemp("code") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["lasat", *TINY, "--model", f"{CODE}:net", "--out", str(folder)])
        assert train.main() == 0
    return folder


def test_no_command_is_forgotten():
    assert {*WORDS, *NO_CODE, *IN_TRIALS} == set(MODULES)


CASES = [(name, n) for name, several in WORDS.items() for n in range(len(several))]


@pytest.mark.parametrize(
    ("fault", "passes"),
    [("own", 0), ("own", 2), ("interrupt", 2), ("generator", 2), ("unspeakable", 2)],  # 2 while it is loaded
)
@pytest.mark.parametrize(("module", "case"), CASES)
def test_a_command_tells_whose_code_raised_and_leaves_nothing(
    module, case, fault, passes, run, tmp_path, monkeypatch, capsys
):
    from PIL import Image

    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Armed, "fault", fault)
    monkeypatch.setattr(Armed, "left", passes)
    words = [str(run) if word == "RUN" else word for word in WORDS[module][case]]
    monkeypatch.setattr("sys.argv", ["lasat", *words])
    status = importlib.import_module(module).main()
    told = capsys.readouterr().err
    assert (
        NAME in told and KINDS[fault] in told.replace("no words", "Unspeakable") and told.count("\n") == 1
    ), told
    assert "bug of ours" not in told
    if module == "lasat_ray.report":  # the records are drawn all the same
        assert status == 0 and told.startswith("lasat-ray: warning: ") and "its net is left out" in told
        return
    assert status == 1 and told.startswith("lasat-ray: error: ")
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    if module == "lasat_ray.train":
        assert "continue" not in told or (tmp_path / "trained" / "metrics.jsonl").is_file()
    else:
        assert left == {"image.png"}


@pytest.mark.parametrize("fault", ODD)
def test_a_trial_fails_by_the_name_of_its_code(fault, tmp_path, monkeypatch):
    from lasat_ray.tune import trainable
    from lasat_ray.tune.trial import Trial

    monkeypatch.setattr(Armed, "fault", fault)
    told = []
    monkeypatch.setattr(trainable.tune, "report", told.append)
    config = small_config(model=f"{CODE}:net", strategy="fixed")
    job = {"trial": json.dumps(Trial(row="a", config=config).to_json())}
    job["place"] = asdict(trainable.TrialResources(out=str(tmp_path / "s"), cwd=os.getcwd()))
    trainable.run_job(job)
    outcome = json.loads(told[-1]["outcome"])
    assert outcome["status"] == "failed" and NAME in outcome["error"] and KINDS[fault] in outcome["error"]
    assert Path(tmp_path / "s" / "trials").is_dir()
