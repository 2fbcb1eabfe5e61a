"""Images and data sets refuse what does not fit; the split; the spellings; digits."""

import pickle
import sys

import pytest
import torch

from lasat_ray.data import SOURCES, ImageDataset, Images, digits, load_dataset, split_validation
from lasat_ray.data.subsets import even_order
from lasat_ray.errors import UsageError, UserError

from .conftest import error_of, load, make_images

X, Y = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (X.float(), Y, "images.x: float32 [3, 1, 2, 2] on cpu; want uint8 [N,C,H,W] on the cpu"),
        (X[0], Y, "images.x: uint8 [1, 2, 2] on cpu; want uint8 [N,C,H,W] on the cpu"),
        (X, Y[:2], "images.y: int64 [2] on cpu; want int64 [3] on the cpu"),
        (X, Y.int(), "images.y: int32 [3] on cpu; want int64 [3] on the cpu"),
        (X, Y - 1, "images.y: label -1 is negative; labels start at 0"),
    ],
)
def test_images_of_a_wrong_shape_type_or_label(x, y, text):
    assert error_of(lambda: Images(x, y)) == text


def test_take_keeps_the_order_asked_for(images):
    taken = images.take(torch.tensor([7, 2, 7]))
    assert len(taken) == 3 and torch.equal(taken.x[0], images.x[7]) and taken.y.tolist() == [3, 2, 3]


def test_a_data_set_knows_its_shape_and_opens_the_test_images_when_asked(images):
    opened = []
    dataset = ImageDataset("toy", images, ("a", "b", "c", "d"), lambda: opened.append(1) or images)
    assert dataset.num_classes == 4 and dataset.image_shape == (3, 8, 8) and not opened
    assert dataset.load_test() is images and opened == [1]


@pytest.mark.parametrize(
    ("train", "test", "text"),
    [
        (make_images(0), None, "toy: holds no training images; check the path"),
        (
            make_images(5, num_classes=5),
            None,
            "toy train image 4: label 4 is outside 0..3; correct the label or the class names",
        ),
        (make_images(5), make_images(0), "toy: holds no test images; check the path"),
        (
            make_images(5),
            make_images(5, num_classes=5),
            "toy test image 4: label 4 is outside 0..3; correct the label or the class names",
        ),
        (
            make_images(5),
            make_images(5, (1, 8, 8)),
            "toy: test images are (1, 8, 8) but training images are (3, 8, 8) (C,H,W); "
            "bring both to one shape",
        ),
    ],
)
def test_a_data_set_refuses_what_does_not_fit(train, test, text):
    assert error_of(lambda: ImageDataset("toy", train, tuple("abcd"), lambda: test).load_test()) == text


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.001, 1), (0.1, 5), (0.5, 26), (0.98, 52)])
def test_the_split_parts_the_images(images, fraction, count):
    marked = Images(torch.arange(53, dtype=torch.uint8).view(53, 1, 1, 1), torch.arange(53))
    train, val = split_validation(marked, fraction, seed=5)
    assert len(val) == count
    assert torch.cat([train.y, val.y]).sort().values.tolist() == list(range(53))
    assert torch.equal(train.y, train.y.sort().values) and torch.equal(train.x.flatten().long(), train.y)


def test_the_seed_decides_the_split(images):
    marked = Images(images.x, torch.arange(53))
    splits = [split_validation(marked, 0.3, seed)[1].y for seed in (1, 1, 2)]
    assert torch.equal(splits[0], splits[1]) and not torch.equal(splits[0], splits[2])


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (1.0, "--data.val-fraction: 1.0 is not a share; choose 0 <= fraction < 1"),
        (-0.1, "--data.val-fraction: -0.1 is not a share; choose 0 <= fraction < 1"),
        (
            0.999,
            "--data.val-fraction: 0.999 of 53 images leaves none to train on; lower it or add images",
        ),
    ],
)
def test_a_split_that_cannot_be(images, fraction, text):
    assert error_of(lambda: split_validation(images, fraction, 0), UsageError) == text


def test_digits_are_the_scikit_learn_digits_in_a_fixed_split():
    from sklearn.datasets import load_digits

    dataset, other_seed = load("digits"), load("digits", seed=1)
    test = dataset.load_test()
    assert (len(dataset.train), len(test)) == (1438, 359) and dataset.image_shape == (1, 8, 8)
    assert dataset.class_names == tuple("0123456789")
    assert torch.equal(dataset.train.x, other_seed.train.x)
    pixel, label = load_digits(return_X_y=True)
    ours = torch.cat([dataset.train.x, test.x]).flatten(1).double() / 255 * 16
    ours = torch.cat([ours.round(), torch.cat([dataset.train.y, test.y])[:, None]], dim=1)
    theirs = torch.cat([torch.tensor(pixel), torch.tensor(label)[:, None].double()], dim=1)
    assert sorted(ours.tolist()) == sorted(theirs.tolist())


@pytest.mark.parametrize("installed", [True, False])
def test_digits_need_no_import_of_scikit_learn_where_its_file_is_found(installed, monkeypatch):
    """It costs every Ray worker one to two seconds of its start."""
    if installed:
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # importing it raises
    else:
        monkeypatch.setattr(digits, "find_spec", lambda name: None)
    assert torch.equal(digits._all().x[:, 0].sum((1, 2))[:3], torch.tensor([4687, 4989, 5483]))


def test_max_train_is_chosen_by_seed_and_max_test_is_even_over_the_classes():
    whole, one, same, other = (
        load("digits", max_train=n, max_test=m, seed=seed)
        for n, m, seed in ((None, None, 0), (50, 7, 0), (50, 7, 0), (50, 7, 1))
    )
    assert len(one.train) == 50 and torch.equal(one.train.x, same.train.x)
    assert not torch.equal(one.train.x, other.train.x)
    test = whole.load_test()
    assert torch.equal(one.load_test().x, test.x[even_order(test.y)[:7]])  # the same for every seed
    assert torch.equal(one.load_test().x, other.load_test().x)
    assert len(set(one.load_test().y.tolist())) == 7
    assert len(load("digits", max_train=10**6, max_test=10**6).train) == 1438


def test_a_data_set_can_be_sent_to_another_process():
    sent = pickle.loads(pickle.dumps(load("digits", max_train=5, max_test=3)))
    assert len(sent.train) == 5 and len(sent.load_test()) == 3


@pytest.mark.parametrize(
    ("spelling", "text"),
    [
        (
            "mnist",
            f"--dataset: 'mnist' is unknown; choose one of: {', '.join(sorted([*SOURCES, 'cifar10.1']))}",
        ),
        ("parquet", "--dataset: 'parquet' lacks its path; write parquet:PATH"),
        ("npz:", "--dataset: 'npz:' lacks its path; write npz:PATH"),
        ("cifar10.1:here", "--dataset: 'cifar10.1:here' takes no path; write cifar10.1"),
        (
            "cifar10.1",
            "--dataset: 'cifar10.1' has test images alone; train on cifar10, and evaluate a net on it",
        ),
        ("cifar10:here", "--dataset: 'cifar10:here' takes no path; write cifar10"),
    ],
)
def test_spellings_that_are_none(spelling, text):
    assert error_of(lambda: load(spelling), UsageError) == text


@pytest.mark.parametrize("field", ["max_train", "max_test"])
def test_numbers_of_images_that_are_none(field):
    text = f"--data.{field.replace('_', '-')}: 0 is not a number of images; give 1 or more, or leave it out"
    assert error_of(lambda: load("digits", **{field: 0}), UsageError) == text


def test_what_the_system_says_about_a_path_is_a_user_error():
    name = "x" * 300
    assert error_of(lambda: load(f"imagefolder:{name}")) == (
        f"{name}/train: cannot be opened (File name too long); check the path of imagefolder:{name}"
    )


def test_root_may_start_with_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = error_of(
        lambda: load_dataset("tiny-imagenet", root="~/sets", max_train=None, max_test=None, seed=0), UserError
    )
    assert str(tmp_path / "sets") in text
