"""Planes beside digits: the small copy of a data set, and a run of each strategy on it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies import compute_plane
from benchmarks.studies.planes import PLANES
from lasat_ray.cli.run_options import parse_train
from lasat_ray.learners import LEARNERS
from lasat_ray.methods import METHODS
from lasat_ray.validation import check


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """200 images of 8x8x3 in four classes, all pixels of a quarter alike, and a copy of half the side."""
    rng = np.random.default_rng(0)
    quarters = rng.integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)
    label = np.arange(200) % 4
    names = np.array(["cat", "dog", "hen", "owl"])
    x = quarters.repeat(2, 1).repeat(2, 2)
    whole = tmp_path / "whole.npz"
    np.savez(whole, image=x, label=label, test_image=x[:40], test_label=label[:40], class_names=names)
    sizes = ["--side", "4", "--train", "100", "--test", "20"]
    command = [sys.executable, "-m", "benchmarks.studies.small_images", f"npz:{whole}"]
    subprocess.run([*command, str(tmp_path / "small.npz"), *sizes], check=True)
    return tmp_path / "small.npz"


def test_a_small_copy_holds_means_even_over_the_classes(images: Path) -> None:
    whole, small = np.load(images.with_name("whole.npz")), np.load(images)
    assert small["image"].shape == (100, 4, 4, 3)
    assert np.bincount(small["label"]).tolist() == [25] * 4
    assert np.bincount(small["test_label"]).tolist() == [5] * 4
    assert small["class_names"].tolist() == ["cat", "dog", "hen", "owl"]
    known = {
        image[::2, ::2].tobytes(): label for image, label in zip(whole["image"], whole["label"], strict=True)
    }
    assert all(
        known[image.tobytes()] == label for image, label in zip(small["image"], small["label"], strict=True)
    )


@pytest.mark.parametrize("plane", PLANES)
def test_every_strategy_of_a_plane_is_a_valid_run_at_its_budget(plane: str) -> None:
    options = compute_plane.Options(plane=plane, dataset="npz:a.npz" if plane != "digits" else None)
    trials = compute_plane.trials(options, seed=3)
    assert len({trial.name for trial in trials}) == 2 * len(PLANES[plane].rows)
    for trial in trials:
        config, _ = parse_train([*trial.flags, "--seed", str(trial.seed)])
        check(config, METHODS, LEARNERS)
        assert config.budget_passes == float(trial.label.partition("@")[2])


def test_a_record_is_continued_and_its_data_named_without_its_place(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute_plane, "RECORDS", tmp_path)
    words = ["--plane", "gtsrb", "--dataset", f"npz:{images}", "--budgets", "30", "--seeds", "0"]
    monkeypatch.setattr(
        sys, "argv", ["plane", *words, "--rows", "constant-10", "--out", str(tmp_path / "runs")]
    )
    compute_plane.main()
    record = (tmp_path / "compute_plane_gtsrb.json").read_text()
    (run,) = json.loads(record)["runs"]
    assert run["trial"]["label"] == "constant-10@30"
    assert run["spent"] == pytest.approx(30, rel=0.3)
    assert str(tmp_path) not in record
    table = compute_plane.table(PLANES["gtsrb"], [run], 30)
    assert "constant, 10 steps (PGD-AT)" in table
