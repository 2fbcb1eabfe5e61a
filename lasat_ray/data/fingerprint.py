"""What tells the images of a run from others, small enough to lie in every checkpoint and manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from lasat_ray.config.urls import is_url
from lasat_ray.data.find_shards import find_folder, find_split
from lasat_ray.data.images import ImageDataset, Images, TrainingImages
from lasat_ray.data.npz import held
from lasat_ray.data.shards import file_identity
from lasat_ray.data.stream import ImageStream

_WORDS = {
    "class_names": "the class names are others",
    "image_shape": "the image shape was {old} and is {new}",
    "train_count": "the training images were {old} and are {new}",
    "train_sha256": "pixels or labels of the training images are others",
    "test_sha256": "the test images or their labels are others",
    "extra_sha256": "the extra images are others",
}


def fingerprint(dataset: ImageDataset, test_identity: str | None, extra: str | None) -> dict[str, Any]:
    """Count, shape, class names, and hashes of the training images, of what is known of the test part, and
    of the extra images (spelled as --data.extra); of streams the files' sizes and first bytes are hashed."""
    found: dict[str, Any] = {
        "class_names": list(dataset.class_names),
        "image_shape": list(dataset.image_shape),
        "train_count": len(dataset.train),
        "train_sha256": hash_images(dataset.train),
    }
    if test_identity is not None:
        found["test_sha256"] = test_identity
    if extra:
        found["extra_sha256"] = _extra_hash(extra)
    return found


def difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """The first thing in which two fingerprints differ, in words; None where they agree.

    What either does not have (written by another version) is not compared.
    """
    for name, words in _WORDS.items():
        if name in old and name in new and old[name] != new[name]:
            return words.format(old=_shown(old[name]), new=_shown(new[name]))
    return None


def hash_images(images: TrainingImages) -> str:
    """sha256 of pixels and labels in memory, or of a stream's files by name, size and first bytes."""
    total = hashlib.sha256()
    if isinstance(images, ImageStream):
        for file in images.shards.files:
            total.update(file_identity(file).encode())
        return total.hexdigest()
    assert isinstance(images, Images)
    for tensor in (images.x, images.y):
        total.update(f"{list(tensor.shape)}".encode())
        total.update(tensor.contiguous().numpy().data)
    return total.hexdigest()


def count_shared(train: TrainingImages, test: Images) -> int:
    """How many test images (x uint8 [N,C,H,W]) are a training image too, pixel for pixel; 0 for a stream,
    whose images are not at hand."""
    if not isinstance(train, Images):
        return 0
    known = {_image_hash(x) for x in train.x.numpy()}
    return sum(_image_hash(x) in known for x in test.x.numpy())


def _image_hash(x: np.ndarray) -> bytes:
    return hashlib.blake2b(x.tobytes(), digest_size=16).digest()


def _extra_hash(spelling: str) -> str:
    kind, _, place = spelling.partition(":")
    where = place if is_url(place) else str(Path(place).expanduser())
    if kind == "npz":
        return hashlib.sha256(str(sorted(held(Path(where)).items())).encode()).hexdigest()
    files = find_split(find_folder(where, "stream"), "train")
    return hashlib.sha256("".join(file_identity(file) for file in files).encode()).hexdigest()


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
