"""CIFAR and GTSRB with stand-ins for torchvision's classes, and what a machine without network says."""

from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from .conftest import encode, error_of, load, pixels


class Cifar:
    """What torchvision's class holds after it has read its files."""

    calls: list[tuple[bool, bool]] = []  # noqa: RUF012
    present = True

    def __init__(self, root, train, download):
        self.calls.append((train, download))
        if not self.present and not download:
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        count = 20 if train else 6
        self.data = np.stack([pixels(n, 32, 32) for n in range(count)])
        self.targets = [n % 3 for n in range(count)]
        self.classes = ["airplane", "automobile", "bird"]


@pytest.fixture
def cifar(monkeypatch):
    for name in ("CIFAR10", "CIFAR100"):
        monkeypatch.setattr(datasets, name, Cifar)
    monkeypatch.setattr(Cifar, "calls", [])
    return Cifar


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_by_way_of_torchvision(cifar, tmp_path, name):
    dataset = load(name, tmp_path, max_test=4)
    assert cifar.calls == [(True, False)]
    assert dataset.class_names == ("airplane", "automobile", "bird") and dataset.image_shape == (3, 32, 32)
    assert torch.equal(dataset.train.x[7], torch.from_numpy(pixels(7, 32, 32)).permute(2, 0, 1))
    test = dataset.load_test()
    assert len(test) == 4 and sorted(test.y.tolist()) == [0, 0, 1, 2] and cifar.calls[1:] == [(False, False)]


def test_cifar_is_downloaded_when_it_is_absent(cifar, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "present", False)
    assert len(load("cifar10", tmp_path / "new", max_train=5).train) == 5
    assert cifar.calls == [(True, False), (True, True)]


def test_svhn_is_read_by_torchvision_s_own_class(tmp_path, monkeypatch):
    """The files as published: images [32,32,3,N], and 10 for the digit 0."""
    for split, count in (("train", 7), ("test", 4)):
        x = np.stack([pixels(n, 32, 32) for n in range(count)], -1)
        y = np.array([[n % 10 or 10] for n in range(count)], dtype=np.uint8)
        savemat(tmp_path / f"{split}_32x32.mat", {"X": x, "y": y})
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    dataset = load("svhn", tmp_path)
    assert dataset.class_names == tuple("0123456789") and dataset.train.y.tolist() == list(range(7))
    assert torch.equal(dataset.train.x[5], torch.from_numpy(pixels(5, 32, 32)).permute(2, 0, 1))
    test = dataset.load_test()
    assert test.y.tolist() == [0, 1, 2, 3] and test.x.shape == (4, 3, 32, 32)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("cifar10", f"put cifar-10-python.tar.gz from {CIFAR_HOME} into {{root}}"),
        (
            "svhn",
            "put train_32x32.mat and test_32x32.mat from http://ufldl.stanford.edu/housenumbers into {root}",
        ),
        ("cifar100", f"put cifar-100-python.tar.gz from {CIFAR_HOME} into {{root}}"),
        (
            "gtsrb",
            "put GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip "
            "from https://benchmark.ini.rub.de/gtsrb_dataset.html into {root}/gtsrb",
        ),
    ],
)
def test_without_network_the_error_says_what_to_put_where(no_network, tmp_path, name, remedy):
    assert error_of(lambda: load(name, tmp_path)) == (
        f"{name}: is not in {tmp_path} and cannot be downloaded (<urlopen error no route to host>); "
        + remedy.format(root=tmp_path)
    )


def test_a_folder_that_cannot_be_written_is_a_user_error(no_network, tmp_path):
    (tmp_path / "file").touch()
    assert error_of(lambda: load("cifar10", tmp_path / "file/new")).startswith("cifar10: is not in ")


@pytest.fixture
def gtsrb(tmp_path):
    """The real folder layout, read by torchvision's real class: two classes, images of any size."""
    base = tmp_path / "gtsrb"
    for label, name in enumerate(("00000", "00001")):
        for n in range(2):
            file = base / f"GTSRB/Training/{name}/0000{n}.ppm"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(pixels(label * 2 + n, 30 + n, 40), "PPM"))
    folder = base / "GTSRB/Final_Test/Images"
    folder.mkdir(parents=True)
    (folder / "00000.ppm").write_bytes(encode(pixels(9, 50, 60), "PPM"))
    (base / "GT-final_test.csv").write_text("Filename;Width;ClassId\n00000.ppm;60;16\n")
    return tmp_path


def test_gtsrb_is_resized(gtsrb):
    dataset = load("gtsrb", gtsrb)
    assert dataset.num_classes == 43 and dataset.train.y.tolist() == [0, 0, 1, 1]
    resized = Image.fromarray(pixels(3, 31, 40)).resize((32, 32), Image.Resampling.BILINEAR)
    assert torch.equal(dataset.train.x[3], torch.from_numpy(np.array(resized)).permute(2, 0, 1))
    test = dataset.load_test()
    assert test.y.tolist() == [16] and test.x.shape == (1, 3, 32, 32)


def test_a_damaged_sign_is_named(gtsrb):
    file = gtsrb / "gtsrb/GTSRB/Training/00001/00000.ppm"
    file.write_bytes(file.read_bytes()[:500])
    assert error_of(lambda: load("gtsrb", gtsrb)).startswith(f"{file}: cannot be read (")


def test_missing_test_signs_are_missed_before_the_training(gtsrb, no_network):
    (gtsrb / "gtsrb/GT-final_test.csv").unlink()
    assert error_of(lambda: load("gtsrb", gtsrb)).startswith("gtsrb: is not in ")
