"""Whatever a program calls its data, as ``Given``: pairs of arrays, torch data sets and loaders, data sets of
Hugging Face (known by their methods: that package is not needed). Everything is read into memory.

Their code is somebody else's: whatever it raises, or gives instead of images and labels, is one line that
names the argument, the kind of data set and the item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from lasat_ray.data.arrays import Given, from_arrays
from lasat_ray.data.images import ImageDataset, Images
from lasat_ray.data.items import Item, from_batches, from_items, pair_of
from lasat_ray.errors import UserError
from lasat_ray.plugins import Plugin, shown

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
        hint = '(a setting is written **{"data.max_train": 100})'
        parts = (part_of(data, (TRAIN,), hint), None if test is not None else part_of(data, TESTS))
        data, test = parts[0], parts[1] if test is None else test
    if isinstance(data, DataLoader):
        raise UserError(
            "data: a DataLoader orders and transforms images by itself, training does that here; give its "
            ".dataset (loaders are for evaluate)"
        )
    train = one_part(data, class_names, "data")
    if test is None:
        return [train]
    names = class_names if class_names is not None or not train.classes.named else train.classes.names
    return [train, one_part(test, names if _names_of(test, _plugin(test, "test")) is None else None, "test")]


def is_mapping(data: Any) -> bool:
    """Whether ``data`` is several parts by name, as a Hugging Face DatasetDict."""
    return isinstance(data, Mapping)


def part_of(data: Mapping[str, Any], names: Sequence[str], hint: str | None = None) -> Any:
    """The first of the parts ``names`` that there is; None where there is none, or, with a ``hint``, a
    UserError that ends with it."""
    plugin = _plugin(data, "data")
    with plugin.call("asked for its parts"):
        there = list(data)
        found = next((data[name] for name in names if name in there), None)
    if found is None and hint is not None:
        told = f"has parts {', '.join(map(str, there))}; one has to be called '{names[0]}'"
        raise UserError(f"data: {told} {hint}".rstrip())
    return found


def one_part(data: Any, class_names: Sequence[str] | None = None, what: str = "data") -> Given:
    """All images of one part in memory. UserError for a kind of data that is not known, or is damaged, and
    for whatever its code raises."""
    if isinstance(data, Given):
        return data
    if isinstance(data, Images):
        return from_arrays(data.x, data.y, class_names, what)
    if isinstance(data, (tuple, list)) and len(data) == 2 and not _is_sample(data):
        x, y = data
        return from_arrays(x, y, class_names, what)
    plugin = _plugin(data, what)
    names = class_names if class_names is not None else _names_of(data, plugin)
    if isinstance(data, DataLoader):
        return from_batches(_loaded(data, plugin), names, plugin)
    with plugin.call("asked for its length"):
        count = len(data) if hasattr(data, "__len__") and hasattr(data, "__getitem__") else None
    if isinstance(data, IterableDataset) or count is None:
        raise UserError(
            f"{what}: {type(data).__name__} is no data; give a name such as 'digits', (x, y), a torch "
            "Dataset with a length, or a Hugging Face dataset"
        )
    items = _rows(data, count, plugin) if _of_hugging_face(data, plugin) else _items(data, count, plugin)
    return from_items(items, names, plugin)


def _plugin(data: Any, what: str) -> Plugin:
    """The data's code under the name of its class; that of a loader's data set, whose code it runs."""
    inner = data.dataset if isinstance(data, DataLoader) else data
    return Plugin(what, type(inner).__name__)


def _is_sample(data: Sequence[Any]) -> bool:
    """A list of two (image, label) pairs is a data set of two images, not (x, y)."""
    return all(isinstance(item, tuple) and len(item) == 2 for item in data)


def _items(data: Any, count: int, plugin: Plugin) -> Iterator[Item]:
    for n in range(count):
        with plugin.call(f"item {n}"):
            item = data[n]
        yield pair_of(item, f"item {n}", plugin)


def _loaded(loader: Any, plugin: Plugin) -> Iterator[Item]:
    """The batches of a loader; its workers' exceptions and ends are its data set's."""
    batches: Iterator[Any] | None = None
    n = 0
    while True:
        with plugin.call(f"batch {n}"):
            batches = iter(loader) if batches is None else batches
            batch = next(batches, _END)
        if batch is _END:
            return
        yield pair_of(batch, f"batch {n}", plugin)
        n += 1


_END = object()


def _names_of(data: Any, plugin: Plugin) -> Sequence[str] | None:
    """The class names that a data set tells: ``classes`` of torchvision's, the label column's of Hugging
    Face's."""
    if isinstance(data, Given):
        return data.classes.names if data.classes.named else None
    with plugin.call("asked for its class names"):
        inner = data
        for _ in range(_DEEPEST):  # a Subset, a loader
            if hasattr(inner, "classes") or not hasattr(inner, "dataset"):
                break
            inner = inner.dataset
        names = getattr(inner, "classes", None)
        if isinstance(features := getattr(inner, "features", None), Mapping):
            column = next((name for name in LABEL_COLUMNS if name in features), None)
            names = getattr(features.get(column), "names", None)
    known = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return names if known else None


_DEEPEST = 100


def _of_hugging_face(data: Any, plugin: Plugin) -> bool:
    with plugin.call("asked for its columns"):
        return hasattr(data, "features") and hasattr(data, "column_names")


def _rows(data: Any, count: int, plugin: Plugin) -> Iterator[Item]:
    """The rows of a data set of Hugging Face."""
    with plugin.call("asked for its columns"):
        columns = [str(name) for name in data.column_names]
    image = next((name for name in IMAGE_COLUMNS if name in columns), None)
    label = next((name for name in LABEL_COLUMNS if name in columns), None)
    if image is None or label is None:
        remedy = "rename those of images and labels to 'image' and 'label'"
        raise plugin.fault(f"has columns {', '.join(columns)}", remedy)
    for n in range(count):
        with plugin.call(f"row {n}"):
            row = data[n]
        if not isinstance(row, Mapping) or not {image, label} <= set(row):
            raise plugin.fault(f"row {n} is {shown(row)}", f"its rows have to hold '{image}' and '{label}'")
        yield row[image], row[label]
