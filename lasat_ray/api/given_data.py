"""Data from Python as a file in the run folder, where workers, --resume, evaluate and report find it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lasat_ray.data.arrays import Given
from lasat_ray.data.objects import training_parts
from lasat_ray.data.subsets import evened
from lasat_ray.errors import UserError
from lasat_ray.rng import RandomKey

FILE = "data.npz"
TEST_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class GivenData:
    """Both parts of somebody's data and what to tell about them."""

    train: Given
    test: Given
    notes: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.train.images.image_shape

    def put(self, folder: Path) -> None:
        """``FILE`` in ``folder``, whole or not at all; UserError where another data set's lies there."""
        arrays = self._arrays()
        if (folder / FILE).is_file():
            with np.load(folder / FILE) as there:
                same = set(there) == set(arrays)
                same = same and all(np.array_equal(there[name], array) for name, array in arrays.items())
            if not same:
                raise UserError(f"data: is not that of the run in {folder}; give the same, or another out")
            return
        temporary = folder / f".{FILE}.tmp"
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, folder / FILE)

    def _arrays(self) -> dict[str, Any]:
        """By the names that an npz file of images has them under."""
        arrays: dict[str, Any] = {}
        for prefix, part in (("", self.train), ("test_", self.test)):
            arrays[f"{prefix}image"] = part.images.x.permute(0, 2, 3, 1).numpy()
            arrays[f"{prefix}label"] = part.images.y.numpy()
        if self.train.classes.named:
            arrays["class_names"] = np.array(self.train.classes.names)
        return arrays


def given_data(data: Any, test: Any, class_names: Sequence[str] | None) -> GivenData:
    """``data`` and ``test`` of ``lasat_ray.train``; a fifth of the training images is held out for the test
    where none are given. UserError in one line for what cannot be trained on."""
    parts = training_parts(data, test, class_names)
    notes = [note for part in parts for note in part.notes]
    if len(parts) == 1:
        parts, told = held_out(parts[0])
        notes.append(told)
    train, test_part = parts
    if train.images.image_shape != test_part.images.image_shape:
        raise UserError(
            f"test: images are {test_part.images.image_shape} (C,H,W) and training images are "
            f"{train.images.image_shape}; bring both to one shape"
        )
    if len(train.classes) < 2:
        raise UserError("data: has images of one class alone; add images of another")
    return GivenData(train, test_part, tuple(notes))


def held_out(given: Given) -> tuple[list[Given], str]:
    """Training and test part, the same in every run: the test part even over the classes as far as goes."""
    images, count = given.images, len(given.images)
    held = max(1, round(TEST_SHARE * count))
    if held >= count:
        raise UserError(f"data: {count} images leave none to test on; give more, or test=(x, y)")
    order = evened(images.y, RandomKey.of("given data", "train and test").permutation(count))
    rows = order[:held].sort().values, order[held:].sort().values
    test, train = (Given(images.take(part), given.classes) for part in rows)
    told = f"data: {held:,} of {count:,} images are held out as the test set; give test= to choose it"
    return [train, test], told
