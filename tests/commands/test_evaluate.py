"""``python -m lasat_ray.evaluate``: what it writes, how it continues after a kill, what it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lasat_ray.api.commands.evaluate import parse_evaluate
from lasat_ray.api.commands.leaderboard import find_reports, measured_row
from lasat_ray.config.json_io import write_config
from lasat_ray.evaluate import main
from lasat_ray.leaderboard import main as leaderboard
from lasat_ray.recipes import get_recipe
from lasat_ray.reporting.study import read_run
from lasat_ray.runs.checkpoint import save_checkpoint
from tests.support import evaluation_nets as nets

ROOT = Path(__file__).resolve().parents[2]
CARD = {"model": "small_cnn", "precision": "fp32", "num_classes": 10, "image_shape": [1, 8, 8]}


def make_run(folder, weights=None, card=CARD):
    """A run folder as training leaves it: digits, eps 0.2, step 0.05, seed 0."""
    (folder / "checkpoints").mkdir(parents=True)
    write_config(get_recipe("digits").config, folder / "config.json")
    net = nets.trained().state_dict() if weights is None else weights
    save_checkpoint(folder / "checkpoints" / "best.safetensors", {"target_net": net, "card": card})
    return folder


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def flags(out):
    with np.load(out / "flags.npz") as arrays:
        return {name: arrays[name] for name in arrays}


FEW = ["--n-examples", "20", "--sanity-examples", "5"]


def test_a_run_is_evaluated_as_it_was_trained(run, capsys):
    assert main([str(run), "--attacks", "clean", "fgsm", "pgd-3", "cw-20", *FEW]) == 0
    report = json.loads((run / "evaluation.json").read_text())
    assert [*report["attacks"]] == ["clean", "fgsm", "pgd-3", "cw-20"]
    assert (report["attacks"]["pgd-3"]["eps"], report["attacks"]["pgd-3"]["step_size"]) == (0.2, 0.05)
    assert report["n"] == 20 and report["seed"] == 0
    assert report["dataset"] == "digits" and report["model"] == "small_cnn"
    assert report["method"] == "pgd-at (learned)" and report["extra_data"] is False
    shown = capsys.readouterr().out
    accuracy = 100 * report["attacks"]["pgd-3"]["accuracy"]
    assert re.search(rf"pgd-3 +0.2 linf +{accuracy:.2f} %", shown)
    assert "sanity check on 5 images: passed" in shown
    assert re.search(r"1 of 1 chunks, (accuracy [\d.]+ %, )?\d+ pieces of work left, about \d+ s", shown)
    assert [*flags(run)] == ["index", "label", "clean", "fgsm", "pgd-3", "cw-20"]


def test_a_checkpoint_file_and_another_budget(run, tmp_path):
    file = run / "checkpoints" / "best.safetensors"
    out = tmp_path / "elsewhere"
    words = ["--attacks", "pgd-2", "--eps", "8/255", "--norm", "l2", "--seed", "3", "--out", str(out), *FEW]
    assert main([str(file), *words]) == 0
    entry = json.loads((out / "evaluation.json").read_text())["attacks"]["pgd-2"]
    assert (entry["eps"], entry["norm"], entry["step_size"]) == (8 / 255, "l2", 2 / 255)
    assert not (run / "evaluation.json").exists()


def test_a_checkpoint_outside_any_run_needs_its_test_set_named(run, tmp_path, capsys):
    file = tmp_path / "lone.safetensors"
    (run / "checkpoints" / "best.safetensors").rename(file)
    assert main([str(file), "--attacks", "clean"]) == 2
    assert "--dataset: " in capsys.readouterr().err
    assert main([str(file), "--attacks", "clean", "--dataset", "digits", *FEW]) == 0
    assert (tmp_path / "lone-evaluation" / "evaluation.json").exists()


def test_a_module_function_net_with_weights_from_elsewhere(tmp_path, capsys, monkeypatch):
    (tmp_path / "their_net.py").write_text(
        "from torch import nn\n"
        "def build(*, num_classes, image_shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    )
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "w.pt")
    words = ["--weights", str(tmp_path / "w.pt"), "--dataset", "digits", "--attacks", "clean"]
    assert main(["their_net:build", *words]) == 0
    test = nets.digits()
    expected = float((net(test.x.float() / 255).argmax(1) == test.y).double().mean())
    report = json.loads((tmp_path / "w-evaluation" / "evaluation.json").read_text())
    assert report["attacks"]["clean"]["accuracy"] == pytest.approx(expected)
    assert report["n"] == 359


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["RUN", "--eps", "9"], 2, "--eps: 9 is out of range"),
        (["RUN", "--eps", "8/0"], 2, "--eps: '8/0' is not a budget"),
        (["RUN", "--attacks", "clean", "pgd"], 2, "--attacks: 'pgd' lacks its number of steps"),
        (["RUN", "--attacks", "nes"], 2, "--attacks: 'nes' is unknown; choose one of: aa"),
        (["RUN", "--n-examples", "0"], 2, "--n-examples: 0 is out of range"),
        (["RUN", "--num-workers", "-1"], 2, "--num-workers: -1 is out of range"),
        (["RUN", "--dataset", "cifar11"], 2, "--dataset: 'cifar11' is unknown"),
        (["RUN", "--attack", "fgsm"], 2, "--attack: is not an option; did you mean --attacks?"),
        (["nowhere"], 2, "RUN: 'nowhere' is no run folder or checkpoint"),
        ([], 2, "RUN is missing"),
        (["wrn-10-1", "--weights", "none.pt", "--dataset", "digits"], 1, "none.pt: no such file of weights"),
        (["wrn-10-1", "--weights", "none.pt"], 2, "--dataset: is missing"),
        (["wrn-11-1", "--weights", "none.pt", "--dataset", "digits"], 2, "has depth 11"),
    ],
)
def test_what_cannot_be_is_one_line_and_no_report(run, capsys, words, status, told):
    assert main([str(run) if word == "RUN" else word for word in words]) == status
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (run / "evaluation.json").exists()


def test_planted_faults_of_nets_and_data_are_one_line_each(tmp_path, capsys):
    def error_of(run, *words):
        assert main([str(run), "--attacks", "clean", *words]) == 1
        error = capsys.readouterr().err
        assert error.startswith("lasat-ray: error: ") and error.count("\n") == 1
        return error

    state = nets.trained().state_dict()
    short = {key: value for key, value in state.items() if key != "backbone.hidden.bias"}
    assert "weight 'backbone.hidden.bias' is missing" in error_of(make_run(tmp_path / "a", short))
    nan = {key: value * float("nan") for key, value in state.items()}
    assert "gives nan or inf for test image 0" in error_of(make_run(tmp_path / "b", nan))
    good = make_run(tmp_path / "c")
    image = np.zeros((4, 8, 8), np.uint8)
    np.savez(
        tmp_path / "empty.npz",
        image=image,
        label=[0, 1, 2, 3],
        test_image=image[:0],
        test_label=image[:0, 0, 0],
    )
    assert "holds no test images" in error_of(good, "--dataset", f"npz:{tmp_path / 'empty.npz'}")
    many = {"image": image, "label": [0, 1, 2, 12], "test_image": image, "test_label": [0, 1, 12, 3]}
    np.savez(tmp_path / "labels.npz", **many)
    told = error_of(good, "--dataset", f"npz:{tmp_path / 'labels.npz'}")
    assert "test_label row 2: label 12 is outside 0..9" in told
    np.savez(tmp_path / "big.npz", image=np.zeros((4, 9, 9), np.uint8), label=[0, 1, 2, 9])
    assert "has images (1, 9, 9) (C,H,W) and the net takes (1, 8, 8)" in error_of(
        good, "--dataset", f"npz:{tmp_path / 'big.npz'}"
    )


SUITE = ["--attacks", "clean", "fgsm", "pgd-60", "cw-60", "--chunk-size", "5"]
SUITE += ["--n-examples", "40", "--sanity-examples", "0"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The flags of SUITE."""
    out = tmp_path_factory.mktemp("uninterrupted")
    assert main([str(make_run(out / "run")), *SUITE, "--out", str(out)]) == 0
    return flags(out)


def kill_driver(run, out, *words):
    """Start the command in a process of its own and kill it -9 when three parts are on disk."""
    command = [sys.executable, "-m", "lasat_ray.evaluate", str(run), *SUITE, "--out", str(out), *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True) as driver:
        for _ in range(1200):
            if len(list(out.rglob("*.safetensors"))) >= 3 or driver.poll() is not None:
                break
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
    assert driver.returncode == -signal.SIGKILL, "the evaluation was over before it could be killed"
    return {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}


@pytest.mark.parametrize(
    "words", [[], pytest.param(["--num-workers", "2"], marks=[pytest.mark.ray, pytest.mark.slow])], ids=str
)
def test_a_killed_driver_loses_the_chunk_in_flight_and_no_more(run, tmp_path, words, uninterrupted):
    out = tmp_path / "killed"
    left = kill_driver(run, out, *words)
    assert not (out / "evaluation.json").exists()
    assert main([str(run), *SUITE, "--out", str(out)]) == 0
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert left.items() <= after.items()  # nothing that was done is done again
    assert len(after) > len(left)
    ours = flags(out)
    assert all(np.array_equal(ours[name], uninterrupted[name]) for name in ours)


def test_help_names_every_attack(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_evaluate(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("pgd-STEPS", "cw-STEPS", "aa-plus", "apgd-ce", "fab-t", "square"))


def test_a_smaller_evaluation_leaves_the_larger_one_on_top(run, tmp_path, capsys):
    large = ["--attacks", "clean", "pgd-3", "--n-examples", "100", "--sanity-examples", "20"]
    assert main([str(run), *large, "--save-images"]) == 0
    on_top = (run / "evaluation.json").read_bytes()
    shown = capsys.readouterr().out.splitlines()
    worst = json.loads(on_top)["worst_case"]
    low, high = (100 * bound for bound in worst["interval"])
    share = f"{100 * worst['accuracy']:.2f} % (95 %: {low:.2f} to {high:.2f})"
    of = "worst case of pgd-3 on 100 of 359 images, 10 of each of 10 classes, L-inf eps 0.2"
    assert shown[-2] == f"{of}: {share}"
    assert shown[-1] == f"Next: python -m lasat_ray.report {run} --out {run / 'report'}"
    assert main([str(run), "--attacks", "clean", "--n-examples", "10", "--sanity-examples", "10"]) == 0
    told = capsys.readouterr().out
    assert f"{run / 'evaluation.json'} stays the one of 100 images with clean, pgd-3" in told
    assert (run / "evaluation.json").read_bytes() == on_top
    assert len(flags(run)["pgd-3"]) == 100
    kept = sorted(run.glob("evaluations/*/evaluation.json"))
    assert sorted(json.loads(file.read_text())["n"] for file in kept) == [10, 100]
    assert all((file.parent / "flags.npz").is_file() for file in kept)
    assert read_run(run).evaluation["n"] == 100
    # one row of the leaderboard, with the worst case and its interval
    assert leaderboard([str(run), "--out", str(tmp_path / "t.json")]) == 0
    (row,) = json.loads((tmp_path / "t.json").read_text())["digits"]
    assert (row["n"], row["worst"], row["worst_interval"]) == (100, worst["accuracy"], worst["interval"])


def test_more_attacks_or_more_images_take_the_top_and_another_budget_does_not(run, capsys):
    top = run / "evaluation.json"

    def counted(*words):
        assert main([str(run), "--sanity-examples", "0", *words]) == 0
        report = json.loads(top.read_text())
        return report["n"], [*report["attacks"]], report["attacks"][[*report["attacks"]][-1]]["eps"]

    assert counted("--attacks", "clean", "--n-examples", "30") == (30, ["clean"], 0)
    assert counted("--attacks", "clean", "fgsm", "--n-examples", "30") == (30, ["clean", "fgsm"], 0.2)
    assert counted("--attacks", "clean", "fgsm", "--n-examples", "40") == (40, ["clean", "fgsm"], 0.2)
    assert counted("--attacks", "clean", "pgd-20", "--eps", "0.1")[:2] == (40, ["clean", "fgsm"])
    files = find_reports([run])  # a row for each budget, none for the clean one
    assert sorted(measured_row(file).budget for file in files) == ["linf 0.1", "linf 0.2"]


def test_an_evaluation_of_an_earlier_version_is_kept(run, capsys):
    assert main([str(run), "--attacks", "clean", *FEW]) == 0
    old = json.loads((run / "evaluation.json").read_text()) | {"n": 7, "started": "2020"}
    shutil.rmtree(run / "evaluations")
    (run / "evaluation.json").write_text(json.dumps(old))
    assert main([str(run), "--attacks", "clean", "fgsm", *FEW]) == 0
    kept = [json.loads(file.read_text())["n"] for file in run.glob("evaluations/*/evaluation.json")]
    assert sorted(kept) == [7, 20]
    assert json.loads((run / "evaluation.json").read_text())["n"] == 20


def test_figures_of_weights_that_are_gone_do_not_count(run, capsys):
    assert main([str(run), "--attacks", "clean", "fgsm", *FEW]) == 0
    changed = {name: value + 1e-3 for name, value in nets.trained().state_dict().items()}
    content = {"target_net": changed, "card": CARD}
    save_checkpoint(run / "checkpoints" / "best.safetensors", content)
    old = json.loads((run / "evaluation.json").read_text())
    for file in [run / "evaluation.json", *run.glob("evaluations/*/evaluation.json")]:
        file.write_text(json.dumps(old | {"started": "2020-01-01T00:00:00+0000"}))
    assert main([str(run), "--attacks", "clean", "--n-examples", "10", "--sanity-examples", "0"]) == 0
    assert json.loads((run / "evaluation.json").read_text())["n"] == 10
    assert "unreliable" in capsys.readouterr().out.splitlines()[-2]  # the check was left out


def test_nets_in_folders_called_evaluations_keep_their_rows(run, tmp_path, capsys):
    for name in ("a", "b"):
        assert (
            main([str(run), "--attacks", "clean", *FEW, "--out", str(tmp_path / "evaluations" / name)]) == 0
        )
    assert [file.parent.name for file in find_reports([tmp_path / "evaluations"])] == ["a", "b"]
