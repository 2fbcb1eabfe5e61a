"""The 1,797 handwritten digits that scikit-learn ships: a data set with no download."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from lasat_ray.data.images import ImageDataset, Images, Request, number_names
from lasat_ray.rng import Stream


def load(request: Request) -> ImageDataset:
    """uint8 [N,1,8,8], 10 classes; 80 % train and 20 % test, the same split in every run."""
    images = _all()
    order = Stream.of("digits", "train and test").permutation(len(images))
    n_train = round(0.8 * len(images))
    train, test = images.take(order[:n_train]), images.take(order[n_train:])
    return ImageDataset(
        name=request.name,
        train=train.take(request.train_rows(len(train))),
        class_names=number_names(10),
        load_test=partial(test.take, request.test_rows(len(test))),
    )


def _all() -> Images:
    from sklearn.datasets import load_digits  # a second to import; other sources never need it

    pixel_ND, label_N = load_digits(return_X_y=True)  # pixels are 0..16
    x = np.round(pixel_ND / 16 * 255).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Images(torch.from_numpy(x), torch.from_numpy(label_N.astype(np.int64)))
