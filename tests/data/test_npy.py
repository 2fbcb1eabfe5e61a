"""CIFAR-10.1 by name, its two files as they are published."""

import json

import numpy as np
import pytest
import torch

from lasat_ray.data import load_test_images
from lasat_ray.data.classes import Classes
from lasat_ray.evaluate import main
from lasat_ray.models import build_classifier

from .conftest import error_of, pixels

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
LABELS = [3, 3, 9, 0, 7, 1, 2, 4, 5, 6, 8, 8]


@pytest.fixture
def root(tmp_path):
    """Version 6: uint8 [N,32,32,3] and int32 [N]."""
    images = np.stack([pixels(n, 32, 32) for n in range(len(LABELS))])
    np.save(tmp_path / "cifar10.1_v6_data.npy", images)
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.array(LABELS, dtype=np.int32))
    return tmp_path


def read(root, classes=Classes(NAMES), shape=SHAPE):  # noqa: B008 - frozen
    return load_test_images("cifar10.1", classes, shape, root=str(root), max_test=None)[0]


def test_its_labels_are_those_of_cifar_10(root):
    images = read(root)
    assert images.y.tolist() == LABELS
    assert torch.equal(images.x[4], torch.from_numpy(pixels(4, 32, 32)).permute(2, 0, 1))
    turned = read(root, Classes(NAMES[::-1]))  # a net that numbers the same classes in another order
    assert turned.y.tolist() == [9 - label for label in LABELS]
    assert read(root, Classes.numbered(10)).y.tolist() == LABELS
    assert "is 'airplane', which is no class of" in error_of(lambda: read(root, Classes(("cat", "dog"))))


@pytest.mark.parametrize("part", ["data", "labels"])
def test_a_file_that_is_missing_is_named_with_its_home(root, part):
    (root / f"cifar10.1_v6_{part}.npy").unlink()
    assert error_of(lambda: read(root)) == (
        f"cifar10.1: {root}/cifar10.1_v6_{part}.npy is missing; put cifar10.1_v6_data.npy and "
        f"cifar10.1_v6_labels.npy of https://github.com/modestyachts/CIFAR-10.1 into {root}"
    )


def test_a_net_is_evaluated_on_it(root, tmp_path, capsys):
    net = build_classifier("small_cnn", num_classes=10, image_shape=SHAPE)
    torch.save(net.backbone.state_dict(), tmp_path / "w.pt")
    few = ["--attacks", "clean", "--sanity-examples", "2", "--data-root"]
    args = ["small_cnn", "--weights", str(tmp_path / "w.pt"), "--dataset", "cifar10.1", *few]
    assert main([*args, str(tmp_path / "nowhere")]) == 1
    assert "cifar10.1_v6_data.npy is missing; put" in capsys.readouterr().err
    assert main([*args, str(root)]) == 0
    found = json.loads((tmp_path / "w-evaluation" / "evaluation.json").read_text())
    with torch.no_grad():
        right = net.eval()(read(root).x / 255).argmax(1) == torch.tensor(LABELS)
    assert found["attacks"]["clean"]["accuracy"] == pytest.approx(float(right.double().mean()))
