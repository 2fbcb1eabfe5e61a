"""Whatever a program calls its data, as ``Given``: pairs of arrays, torch data sets and loaders, data sets of
Hugging Face (known by their methods: that package is not needed). Everything is read into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lasat_ray.data.arrays import Given, from_arrays
from lasat_ray.data.decode import Background, plain_image
from lasat_ray.data.images import ImageDataset, Images
from lasat_ray.data.part import told_counts
from lasat_ray.errors import UserError

TRAIN = "train"
TESTS = ("test", "validation", "valid", "val")
IMAGE_COLUMNS = ("image", "img", "pixel_values")
LABEL_COLUMNS = ("label", "labels", "fine_label")


def training_parts(data: Any, test: Any = None, class_names: Sequence[str] | None = None) -> list[Given]:
    """The training part, and the test part where there is one. UserError in one line for what no run can
    train on."""
    if isinstance(data, ImageDataset):
        images = data.train.take(torch.arange(len(data.train)))
        data, test = Given(images, data.classes), Given(data.load_test(), data.classes)
    if is_mapping(data):
        found = [name for name in TESTS if name in data]
        if TRAIN not in data:
            told = f"has parts {', '.join(map(str, data))}; one has to be called '{TRAIN}'"
            raise UserError(f'data: {told} (a setting is written **{{"data.max_train": 100}})')
        test = data[found[0]] if test is None and found else test
        data = data[TRAIN]
    if isinstance(data, DataLoader):
        raise UserError(
            "data: a DataLoader orders and transforms images by itself, training does that here; give its "
            ".dataset (loaders are for evaluate)"
        )
    train = one_part(data, class_names, "data")
    if test is None:
        return [train]
    names = class_names if class_names is not None or not train.classes.named else train.classes.names
    return [train, one_part(test, names if _names_of(test) is None else None, "test")]


def is_mapping(data: Any) -> bool:
    """Whether ``data`` is several parts by name, as a Hugging Face DatasetDict."""
    return isinstance(data, Mapping)


def one_part(data: Any, class_names: Sequence[str] | None = None, what: str = "data") -> Given:
    """All images of one part in memory. UserError for a kind of data that is not known, or is damaged."""
    if isinstance(data, Given):
        return data
    if isinstance(data, Images):
        return from_arrays(data.x, data.y, class_names, what)
    if isinstance(data, (tuple, list)) and len(data) == 2 and not _is_sample(data):
        x, y = data
        return from_arrays(x, y, class_names, what)
    if isinstance(data, DataLoader):
        return _from_loader(data, class_names, what)
    names = class_names if class_names is not None else _names_of(data)
    if hasattr(data, "features") and hasattr(data, "column_names"):
        return _from_rows(_hugging_face_rows(data, what), names, what)
    if isinstance(data, IterableDataset) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise UserError(
            f"{what}: {type(data).__name__} is no data; give a name such as 'digits', (x, y), a torch "
            "Dataset with a length, or a Hugging Face dataset"
        )
    return _from_rows((_pair(data[n], n, what) for n in range(len(data))), names, what)


def _is_sample(data: Sequence[Any]) -> bool:
    """A list of two (image, label) pairs is a data set of two images, not (x, y)."""
    return all(isinstance(item, tuple) and len(item) == 2 for item in data)


def _pair(item: Any, n: int, what: str) -> tuple[Any, Any]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise UserError(f"{what}: item {n} is {type(item).__name__}; a data set has to give (image, label)")
    return item[0], item[1]


def _from_loader(loader: Any, class_names: Sequence[str] | None, what: str) -> Given:
    batches = [_pair(batch, n, what) for n, batch in enumerate(loader)]
    if not batches:
        raise UserError(f"{what}: the DataLoader gives no batch; check its data set")
    names = class_names if class_names is not None else _names_of(loader.dataset)
    x = torch.cat([torch.as_tensor(images) for images, _ in batches])
    return from_arrays(x, torch.cat([torch.as_tensor(labels) for _, labels in batches]), names, what)


def _names_of(data: Any) -> Sequence[str] | None:
    """The class names that a data set tells: ``classes`` of torchvision's, the label column's of Hugging
    Face's."""
    if isinstance(data, Given):
        return data.classes.names if data.classes.named else None
    inner = data
    while hasattr(inner, "dataset") and not hasattr(inner, "classes"):  # a Subset, a loader
        inner = inner.dataset
    features = getattr(inner, "features", None)
    if isinstance(features, Mapping):
        column = next((name for name in LABEL_COLUMNS if name in features), None)
        return getattr(features.get(column), "names", None)
    classes = getattr(inner, "classes", None)
    if isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes):
        return classes
    return None


def _hugging_face_rows(data: Any, what: str) -> Iterable[tuple[Any, Any]]:
    columns = list(data.column_names)
    image = next((name for name in IMAGE_COLUMNS if name in columns), None)
    label = next((name for name in LABEL_COLUMNS if name in columns), None)
    if image is None or label is None:
        raise UserError(
            f"{what}: has columns {', '.join(columns)}; rename those of images and labels to "
            "'image' and 'label'"
        )
    for n in range(len(data)):
        row = data[n]
        yield row[image], row[label]


def _from_rows(rows: Iterable[tuple[Any, Any]], names: Sequence[str] | None, what: str) -> Given:
    notes: Counter[str] = Counter()
    images, labels = [], []
    for n, (image, label) in enumerate(rows):
        images.append(_pixels(image, f"{what}: image {n}", notes))
        labels.append(label)
        if images[n].shape[1:] != images[0].shape[1:] or images[n].dtype != images[0].dtype:
            told = f"{list(images[n].shape)} {images[n].dtype}, the first {list(images[0].shape)}"
            raise UserError(f"{what}: image {n} is {told} {images[0].dtype}; bring all to one size and type")
    if not images:
        raise UserError(f"{what}: holds no images; check the data set")
    channels = max(len(image) for image in images)
    x = torch.stack([image.expand(channels, -1, -1) for image in images])
    given = from_arrays(x, np.array([int(label) for label in labels]), names, what)
    return Given(given.images, given.classes, (*told_counts(what, notes), *given.notes))


def _pixels(image: Any, where: str, notes: Counter[str], background: Background = "white") -> Tensor:
    """One image [C,H,W], uint8 or float: of PIL, a tensor [C,H,W], or an array [H,W,C] or [H,W]."""
    if isinstance(image, Image.Image):
        array = np.asarray(plain_image(image, where, background, notes))
        tensor = torch.from_numpy(array.copy())
        return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    tensor = image if isinstance(image, Tensor) else torch.from_numpy(np.asarray(image).copy())
    if tensor.ndim == 2:
        return tensor[None]
    last = tensor.ndim == 3 and tensor.shape[2] in (1, 3)
    if last and (not isinstance(image, Tensor) or tensor.shape[0] not in (1, 3)):
        tensor = tensor.permute(2, 0, 1)
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise UserError(f"{where} has shape {list(tensor.shape)}; give [C,H,W] with 1 or 3 channels")
    return tensor
