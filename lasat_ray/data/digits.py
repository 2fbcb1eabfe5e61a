"""The 1,797 handwritten digits that scikit-learn ships: a data set with no download."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from lasat_ray.data.images import ImageDataset, Images, Request, number_names
from lasat_ray.rng import RandomKey


def load(request: Request) -> ImageDataset:
    """uint8 [N,1,8,8], 10 classes; 80 % train and 20 % test, the same split in every run."""
    images = _all()
    order = RandomKey.of("digits", "train and test").permutation(len(images))
    n_train = round(0.8 * len(images))
    train, test = images.take(order[:n_train]), images.take(order[n_train:])
    return ImageDataset(
        name=request.name,
        train=train.take(request.train_rows(len(train))),
        class_names=number_names(10),
        load_test=partial(test.take, request.test_rows(len(test))),
    )


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
