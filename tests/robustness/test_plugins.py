"""Code from outside that breaks its contract is told in one line with its name, wherever it is called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lasat_ray import evaluate, train
from tests.support import plugins

ROOT = Path(__file__).parents[2]
HERE = "tests.support.plugins"
TINY = ["--recipe", "digits", "--epochs", "1", "--batch-size", "32", "--data.max-train", "160"]
TINY += ["--model", "mlp", "--strategy-model", "mlp", "--evaluation.val-num-steps", "1"]
TINY += ["--evaluation.test-num-steps", "1", "--data.max-test", "40", "-k", "1"]


def told(monkeypatch, capsys, command, *words):
    """What a command that has to fail tells."""
    monkeypatch.setattr("sys.argv", ["lasat", *words])
    assert command() in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("lasat-ray: error: ") and error.count("\n") == 1, error
    assert "a bug of ours" not in error and "Traceback" not in error
    return error


@pytest.fixture
def failing(monkeypatch, capsys, tmp_path):
    """Trains with bad code; its one line names it, and nothing is left behind where no round was played."""

    def run(option, name, *more):
        out = tmp_path / "run"
        error = told(
            monkeypatch, capsys, train.main, *TINY, option, f"{HERE}:{name}", "--out", str(out), *more
        )
        assert f"{option}: '{HERE}:{name}'" in error, error
        assert "; " in error
        return error

    return run


@pytest.mark.parametrize("fault", plugins.BAD_LOGITS)
def test_a_net_that_breaks_its_contract_after_the_trial(failing, fault):
    failing("--model", f"net__{fault}", "--strategy", "fixed")


@pytest.mark.parametrize("fault", ["rows", "none", "exits"])
def test_a_strategy_net(failing, fault):
    failing("--strategy-model", f"net__{fault}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("batch_statistics", "gives an image other logits in a batch than alone"),
        ("batch_statistics_of_vectors", "cannot take one image alone in evaluation mode"),
        ("detached", "returned logits without a graph"),
        ("locked", "copied raised TypeError: cannot pickle '_thread.lock' object"),
        ("extra", "state dict under '"),
        ("renamed", "given its own weights back raised RuntimeError: Error(s) in loading state_dict"),
        ("no_gradient", "differentiated in train mode raised ValueError: no formula"),
    ],
)
def test_what_the_trial_of_a_net_finds_before_the_first_round(failing, tmp_path, name, words):
    error = failing("--model", name, "--strategy", "fixed")
    if name == "locked":
        words = "fails on two images"  # the first copy is the first trial's
    assert words in error
    assert not (tmp_path / "run").exists()


def test_a_share_of_one_image_is_tried_in_train_mode(failing, monkeypatch, capsys, tmp_path):
    error = failing("--model", "lazy_norm", "--strategy", "fixed", "--batch-size", "1")
    assert "cannot be trained on shares of one image" in error
    assert "give each worker 2 images or more (--batch-size, --num-workers)" in error
    words = ["--batch-size", "1", "--model", "torchvision:resnet18", "--strategy", "fixed"]
    error = told(monkeypatch, capsys, train.main, *TINY, *words, "--out", str(tmp_path / "x"))
    assert "--model: 'torchvision:resnet18' cannot be trained on shares of one image" in error


BF16 = ["--precision", "bf16", "--reward.credit", "influence"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("memory", "--device: the GPU's memory is full with --batch-size 32"),
        ("hardware", "--device: the GPU failed (AcceleratorError: CUDA error: an illegal"),
        ("host", "memory: not enough is free (RuntimeError: DefaultCPUAllocator: can't allocate memory"),
        (
            "own",
            f"--model: '{HERE}:tuned__own' given images (32, 1, 8, 8) raised RuntimeError: no such",
        ),
    ],
)
def test_a_failure_in_the_influence_credit_is_no_fallback(monkeypatch, capsys, tmp_path, fault, words):
    model = ["--model", f"{HERE}:tuned__{fault}", "--out", str(tmp_path / "run")]
    assert words in told(monkeypatch, capsys, train.main, *TINY, *BF16, *model)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", [f"{HERE}:tuned__layer", "resnet18-8"])
def test_a_fallback_of_the_influence_credit_is_told_once_in_one_line(model, tmp_path):
    """As the command line shows it; the ResNet needs none, with BatchNorm in bf16 neither."""
    words = [*TINY, *BF16, "--model", model, "--out", "run"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "lasat_ray.train", *words],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    if model == "resnet18-8":
        assert done.stderr == ""
    else:
        assert done.stderr.startswith("lasat-ray: warning: --reward.credit: a layer has no forward deriv")
        assert done.stderr.count("\n") == 1


def test_lazy_layers_find_their_sizes_before_they_are_used(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        "sys.argv", ["lasat", *TINY, "--model", f"{HERE}:lazy_norm", "--out", str(tmp_path / "r")]
    )
    assert train.main() == 0
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["rounds"] == 4


@pytest.mark.parametrize("fault", plugins.BAD_ACTIONS)
def test_a_learner_s_actions(failing, fault):
    assert " act " in failing("--learner", f"act__{fault.replace('-', '_')}")


@pytest.mark.parametrize("fault", plugins.BAD_REPORTS)
def test_a_learner_s_report(failing, fault):
    assert " update " in failing("--learner", f"update__{fault}")


@pytest.mark.parametrize("fault", plugins.BAD_STATES)
def test_a_learner_s_state(failing, fault):
    assert " state_dict " in failing("--learner", f"state__{fault}")


def test_a_learner_with_a_lock_is_never_copied(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        "sys.argv", ["lasat", *TINY, "--learner", f"{HERE}:Learner", "--out", str(tmp_path / "r")]
    )
    assert train.main() == 0
    records = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [r["updates"] for r in records if r["kind"] == "round"] == [
        1,
        2,
        3,
        4,
    ]  # the probe learned nothing


@pytest.mark.parametrize("fault", plugins.BAD_LOSSES)
def test_a_method_s_loss(failing, fault):
    assert " loss " in failing("--method", f"loss__{fault}", "--strategy", "fixed")


@pytest.mark.parametrize("fault", plugins.BAD_HOOKS)
def test_a_method_s_hooks(failing, fault):
    failing("--method", f"hook__{fault.replace('-', '_')}", "--strategy", "fixed")


@pytest.mark.parametrize("fault", plugins.BAD_IMAGES)
def test_an_attack(trained, monkeypatch, capsys, fault):
    name = f"{HERE}:attack__{fault}"
    error = told(monkeypatch, capsys, evaluate.main, str(trained), "--attacks", name, "--n-examples", "20")
    assert name in error


def test_an_attack_is_judged_by_images_that_it_cannot_change(trained, monkeypatch, capsys):
    name = f"{HERE}:in_place"
    error = told(monkeypatch, capsys, evaluate.main, str(trained), "--attacks", name, "--n-examples", "20")
    assert "from its image" in error


def test_a_net_without_statistics_of_its_own_is_unreliable(monkeypatch, capsys, tmp_path):
    net = plugins.batch_statistics(num_classes=10, image_shape=(1, 8, 8))
    net(torch.rand(4, 1, 8, 8))
    torch.save(net.state_dict(), tmp_path / "w.pt")
    words = [f"{HERE}:batch_statistics", "--weights", str(tmp_path / "w.pt"), "--dataset", "digits"]
    assert evaluate.main([*words, "--attacks", "clean", "--n-examples", "40"]) == 0
    assert "depend on the others of its batch" in capsys.readouterr().out
