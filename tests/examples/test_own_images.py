"""A robust net of a folder of images by Python alone, and what is told of the time that takes."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.speed.first_net import accuracies

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Digits as PNG files: 300 to train on, 40 to test."""
    place, digits = tmp_path_factory.mktemp("photos"), load_digits()
    for n, (image, label) in enumerate(zip(digits.images[:340], digits.target, strict=False)):
        folder = place / ("train" if n < 300 else "test") / f"digit-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image / 16 * 255).round().astype(np.uint8)).save(folder / f"{n}.png")
    return place


@pytest.mark.slow
def test_a_folder_of_images_becomes_a_robust_net(photos, tmp_path):
    words = [str(photos), "--epochs", "8", "--out", str(tmp_path / "run")]
    command = [sys.executable, "-m", "examples.robust_net_of_own_images", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    found = accuracies(done.stdout)
    assert list(found) == ["clean", "pgd-50", "apgd-ce"]
    assert found["clean"] >= found["pgd-50"] > 0.2
    assert re.search(r"^\d+.png: digit-\d \(\d+%\), (and withstands|until it is)", done.stdout, flags=re.M)
    assert (tmp_path / "run" / "summary.json").is_file()
