"""CIFAR-10, CIFAR-100, SVHN and GTSRB by way of torchvision, which downloads and checks the archives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lasat_ray.data.classes import Classes, number_names
from lasat_ray.data.decode import Encoded, decode_all
from lasat_ray.data.images import ImageDataset, Images, Request
from lasat_ray.data.part import Part, Shape, make_dataset, part_of_images
from lasat_ray.errors import UserError

# torchvision is imported where it is used: three seconds that other sources need not wait

T = TypeVar("T")

_GTSRB_SIDE = 32
GTSRB_CLASSES = Classes(number_names(43))
SVHN_CLASSES = Classes(number_names(10))
_BY_HAND = {
    "cifar10": ("cifar-10-python.tar.gz", "", "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "cifar100": ("cifar-100-python.tar.gz", "", "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "svhn": ("train_32x32.mat and test_32x32.mat", "", "http://ufldl.stanford.edu/housenumbers"),
    "gtsrb": (
        "GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip",
        "gtsrb",
        "https://benchmark.ini.rub.de/gtsrb_dataset.html",
    ),
}
"""Set -> archives that torchvision looks for before it downloads, their folder in root, their home."""


def load_cifar(request: Request) -> ImageDataset:
    """``cifar10`` or ``cifar100``: uint8 [N,3,32,32]. UserError where it cannot be had."""
    train = _cifar(request.name, request.root, True)
    images = _cifar_images(train, request.train_rows(len(train.data)))
    classes = Classes(tuple(train.classes))
    opener = partial(_open_cifar_test, request.name, request.root)
    return make_dataset(request, images, classes, (opener,), available=len(train.data))


def load_svhn(request: Request) -> ImageDataset:
    """``svhn``: house numbers (Netzer et al. 2011), 73,257 to train on and 26,032 to test with, uint8
    [N,3,32,32]; the digit 0 is class 0. UserError where it cannot be had."""
    train = _svhn(request.root, "train")
    rows = request.train_rows(len(train.data))
    opener = partial(_open_svhn_test, request.root)
    return make_dataset(
        request, _svhn_images(train, rows), SVHN_CLASSES, (opener,), available=len(train.data)
    )


def load_gtsrb(request: Request) -> ImageDataset:
    """``gtsrb``: 43 classes by official number, images of any size resized to uint8 [N,3,32,32].

    UserError where it cannot be had.
    """
    # both lists now: better to learn of a missing test archive before the training than after it
    train, test = (_gtsrb_samples(request, split) for split in ("train", "test"))
    images = _gtsrb_images(train, request.train_rows(len(train)))
    opener = partial(_open_gtsrb_test, test)
    return make_dataset(request, images, GTSRB_CLASSES, (opener,), available=len(train))


def _open_cifar_test(name: str, root: Path) -> Part:
    test = _cifar(name, root, False)
    images = _cifar_images(test, torch.arange(len(test.data)))
    return part_of_images(images, Classes(tuple(test.classes)), f"{name} test")


def _open_svhn_test(root: Path) -> Part:
    test = _svhn(root, "test")
    return part_of_images(_svhn_images(test, torch.arange(len(test.data))), SVHN_CLASSES, "svhn test")


def _svhn(root: Path, split: str) -> Any:
    from torchvision import datasets

    def make(download: bool) -> Any:
        return datasets.SVHN(str(root), split=split, download=download)

    return _fetched("svhn", root, make)


def _svhn_images(dataset: Any, chosen: Tensor) -> Images:
    x, y = (
        torch.from_numpy(np.asarray(part)).index_select(0, chosen) for part in (dataset.data, dataset.labels)
    )
    return Images(x.contiguous(), y.to(torch.int64))


def _open_gtsrb_test(samples: list[tuple[str, int]]) -> Part:
    def read(rows: Tensor, channels: int | None) -> tuple[Tensor, Counter[str]]:
        return _gtsrb_images(samples, rows).x, Counter()

    def look(rows: Tensor, shape: Shape) -> None:
        """Every image is resized; nothing can differ."""

    labels = np.array([label for _, label in samples], dtype=np.int64)
    return Part("gtsrb test", labels, GTSRB_CLASSES, read, look)


def _cifar(name: str, root: Path, train: bool) -> Any:
    from torchvision import datasets

    kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    return _fetched(name, root, lambda download: kind(str(root), train=train, download=download))


def _cifar_images(dataset: Any, chosen: Tensor) -> Images:
    x_NHWC = torch.from_numpy(np.asarray(dataset.data)).index_select(0, chosen)
    y = torch.tensor(dataset.targets, dtype=torch.int64)[chosen]
    return Images(x_NHWC.permute(0, 3, 1, 2).contiguous(), y)


def _gtsrb_samples(request: Request, split: str) -> list[tuple[str, int]]:
    from torchvision import datasets

    dataset = _fetched(
        request.name,
        request.root,
        lambda download: datasets.GTSRB(str(request.root), split=split, download=download),
    )
    # the private list, for with paths the images go through our own checks and threads
    samples: list[tuple[str, int]] | None = getattr(dataset, "_samples", None)
    if samples is None:
        raise UserError("gtsrb: this torchvision lists no files; install torchvision 0.21, say")
    for path, _ in samples:
        if ".." in Path(path).parts:
            raise UserError(f"gtsrb: '{path}' leads out of the data set; unpack its archives again")
    return samples


def _gtsrb_images(samples: list[tuple[str, int]], rows: Tensor) -> Images:
    chosen = [samples[row] for row in rows.tolist()]
    encoded = Encoded.files([Path(path) for path, _ in chosen])
    x = decode_all(encoded, side=_GTSRB_SIDE, channels=3, remedy="")
    return Images(x, torch.tensor([label for _, label in chosen], dtype=torch.int64))


def _fetched(name: str, root: Path, make: Callable[[bool], T]) -> T:
    """``make(False)``, or where that finds nothing ``make(True)``, which downloads."""
    try:
        return make(False)
    except (RuntimeError, OSError):
        pass  # absent or incomplete
    try:
        with _locked(root):
            return make(True)
    except (RuntimeError, OSError, EOFError) as problem:
        archives, folder, home = _BY_HAND[name]
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise UserError(
            f"{name}: is not in {root} and cannot be downloaded ({reason}); put {archives} from {home} "
            f"into {root / folder}"
        ) from problem


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One process at a time: workers that start together must not write one archive together."""
    import fcntl  # absent on Windows, where Ray's workers are few and this source is not tested

    new = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    file = root / ".download.lock"
    try:
        with open(file, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except BaseException:
        if new and list(root.iterdir()) == [file]:  # nothing came: leave no trace
            with suppress(OSError):
                file.unlink()
                root.rmdir()
        raise
