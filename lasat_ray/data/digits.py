"""The 1,797 handwritten digits that scikit-learn ships: a data set with no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from lasat_ray.data.classes import Classes, number_names
from lasat_ray.data.images import ImageDataset, Images, Request
from lasat_ray.data.part import Part, make_dataset, part_of_images
from lasat_ray.rng import RandomKey

CLASSES = Classes(number_names(10))


def load(request: Request) -> ImageDataset:
    """uint8 [N,1,8,8], 10 classes; 80 % train and 20 % test, the same split in every run."""
    train, _ = _split()
    images = train.take(request.train_rows(len(train)))
    return make_dataset(request, images, CLASSES, (open_test,), available=len(train))


def open_test() -> Part:
    """Return the 359 test images as a part of the data set."""
    return part_of_images(_split()[1], CLASSES, "digits test")


def _split() -> tuple[Images, Images]:
    images = _all()
    order = RandomKey.of("digits", "train and test").permutation(len(images))
    n_train = round(0.8 * len(images))
    return images.take(order[:n_train]), images.take(order[n_train:])


def _all() -> Images:
    pixel_ND, label_N = _table()  # pixels are 0..16
    x = np.round(pixel_ND / 16 * 255).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Images(torch.from_numpy(x), torch.from_numpy(label_N.astype(np.int64)))


def _table() -> tuple[np.ndarray, np.ndarray]:
    """Pixels [1797,64] and labels [1797] as ``load_digits`` gives them, from the file that it reads:
    importing scikit-learn takes every worker one to two seconds."""
    found = find_spec("sklearn")
    for place in (found and found.submodule_search_locations) or ():
        file = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits  # packed otherwise, it still finds its own file

    return load_digits(return_X_y=True)
