"""The commands on the pretended GPU: what each tells is what it tells on the CPU, run after run."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from tests.support.pretended_gpu import pretended_gpu

SMALL = (
    *("--recipe", "digits", "--epochs", "1", "--batch-size", "48"),
    *("--data.max-train", "160", "--data.max-test", "24", "--reward.ref-num-steps", "2"),
    *("--evaluation.val-num-steps", "2", "--evaluation.test-num-steps", "2", "--num-workers", "0"),
)


def on_the_card(command: str, *words: str) -> None:
    with pretended_gpu(), mock.patch.object(sys, "argv", [command, *words]):
        assert importlib.import_module(f"lasat_ray.{command}").main() == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run, trained on the card and on the CPU."""
    folder = tmp_path_factory.mktemp("runs")
    found = {device: folder / device for device in ("cuda", "cpu")}
    for device, run in found.items():
        on_the_card("train", *SMALL, "--device", device, "--out", str(run))
    return found


def device_of(run: Path) -> str:
    return json.loads((run / "manifest.json").read_text())["machine"]["device"]


def test_a_run_is_summed_up_alike(runs):
    ours, theirs = (json.loads((run / "summary.json").read_text()) for run in runs.values())
    assert device_of(runs["cuda"]) == "pretended" != device_of(runs["cpu"])
    same = ("clean_acc", "robust_acc_pgd2", "rounds", "passes", "n_test")
    assert [ours[name] for name in same] == [theirs[name] for name in same]


def test_a_run_starts_from_another_with_a_new_head_and_ends_on_its_budget(runs, tmp_path):
    words = ("--init-from", str(runs["cpu"]), "--new-head", "--budget", "20passes", "--device", "cuda")
    on_the_card("train", *SMALL, *words, "--out", str(tmp_path / "run"))
    assert device_of(tmp_path / "run") == "pretended"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_evaluations_count_the_same_images(norm, runs, tmp_path):
    attacks = ("clean", "pgd-2", "cw-2", "aa") if norm == "linf" else ("clean", "pgd-2", "apgd-ce")
    words = ["--attacks", *attacks, "--n-examples", "6", "--norm", norm]
    words += ["--eps", "0.5"] if norm == "l2" else []
    found = []
    for device, run in runs.items():
        out = tmp_path / device
        on_the_card("evaluate", str(run), *words, "--device", device, "--out", str(out))
        told = json.loads((out / "evaluation.json").read_text())["attacks"]
        found.append({name: entry["accuracy"] for name, entry in told.items()})
    assert found[0] == found[1] and len(found[0]) == len(attacks)


def test_explained_predicted_reported_and_exported(runs, tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(tmp_path / "photo.png")
    told = []
    for device, run in runs.items():
        table = tmp_path / f"{device}.csv"
        on_the_card("predict", str(run), str(tmp_path / "photo.png"), "--device", device, "--out", str(table))
        told.append(table.read_text())
        on_the_card("explain", str(run), "0", "1")
        on_the_card("report", str(run), "--out", str(tmp_path / f"report-{device}"))
        on_the_card("export", str(run), "--format", "safetensors")
        assert (run / "explain.png").is_file()
    assert told[0] == told[1]
