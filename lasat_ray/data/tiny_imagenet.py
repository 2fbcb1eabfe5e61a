"""Tiny ImageNet as Stanford's archive unpacks; its validation images serve as the test set."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lasat_ray.config.files import check_regular
from lasat_ray.data.classes import Classes
from lasat_ray.data.decode import Encoded, check_headers, decode_all
from lasat_ray.data.guard import reading
from lasat_ray.data.images import ImageDataset, Images, Request
from lasat_ray.data.part import Part, Shape, make_dataset
from lasat_ray.errors import UserError

_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def load(request: Request) -> ImageDataset:
    """root/tiny-imagenet-200: uint8 [N,3,64,64]; classes in the order of their wnids.

    Named by words.txt where it is there, else by wnid. UserError naming the missing or damaged file.
    """
    folder = request.root / "tiny-imagenet-200"
    for part in ("wnids.txt", "train", "val/images", "val/val_annotations.txt"):
        if not (folder / part).exists():
            raise UserError(
                f"tiny-imagenet: {folder / part} is missing; unzip {_URL} (237 MB) in {request.root}"
            )
    wnids = sorted(_lines(folder / "wnids.txt"))
    files: list[Path] = []
    labels: list[int] = []
    for label, wnid in enumerate(wnids):
        found = sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
        if not found:
            raise UserError(f"{folder / 'train' / wnid / 'images'}: holds no *.JPEG; unzip {_URL} again")
        files += found
        labels += [label] * len(found)
    classes = Classes(_names(folder / "words.txt", wnids))
    images = _images(files, labels, request.train_rows(len(files)))
    opener = partial(open_test, folder / "val", wnids, classes)
    return make_dataset(request, images, classes, (opener,), available=len(files))


def open_test(folder: Path, wnids: list[str], classes: Classes) -> Part:
    """The images that val_annotations.txt lists: name, wnid and a box, between tabs. UserError for a line
    that names none."""
    labels_by_wnid = {wnid: label for label, wnid in enumerate(wnids)}
    table = folder / "val_annotations.txt"
    files: list[Path] = []
    labels: list[int] = []
    for row, line in enumerate(_lines(table)):
        name, *rest = line.split("\t")
        if not rest or rest[0] not in labels_by_wnid or "/" in name:
            raise UserError(f"{table} row {row}: '{line[:40]}' names no image and class; unzip {_URL} again")
        files.append(folder / "images" / name)
        labels.append(labels_by_wnid[rest[0]])

    def read(rows: Tensor, channels: int | None) -> tuple[Tensor, Counter[str]]:
        return _images(files, labels, rows).x, Counter()

    def look(rows: Tensor, shape: Shape) -> None:
        some = Encoded.files([files[row] for row in rows.tolist()])
        check_headers(some, shape, sized=True, remedy=f"unzip {_URL} again")

    return Part(str(folder), np.array(labels, dtype=np.int64), classes, read, look)


def _images(files: list[Path], labels: list[int], rows: Tensor) -> Images:
    encoded = Encoded.files([files[row] for row in rows.tolist()])
    # a few of the photographs are grey: three channels whatever the chosen rows hold
    x = decode_all(encoded, channels=3, remedy=f"unzip {_URL} again")
    return Images(x, torch.tensor(labels, dtype=torch.int64)[rows])


def _names(words: Path, wnids: list[str]) -> tuple[str, ...]:
    if not words.exists():
        return tuple(wnids)
    table = dict(line.split("\t", 1) for line in _lines(words) if "\t" in line)
    return tuple(table.get(wnid, wnid) for wnid in wnids)


def _lines(file: Path) -> list[str]:
    with reading(str(file)):
        check_regular(file)
        lines = file.read_text(encoding="utf-8").splitlines()
        if not lines:
            raise UserError(f"{file}: is empty; unzip {_URL} again")
        return [line for line in lines if line.strip()]
