"""One folder a class: PATH/train/CLASS/*.png and the same under test, val, valid or validation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lasat_ray.data.decode import Encoded, decode_all
from lasat_ray.data.images import ImageDataset, Images, Request
from lasat_ray.errors import UsageError, UserError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_TEST_NAMES = ("test", "val", "valid", "validation")


def load(request: Request) -> ImageDataset:
    """``imagefolder:PATH`` or ``imagefolder:PATH@SIZE``, which resizes every image to SIZE x SIZE.

    Classes are the folders of PATH/train in alphabetical order. UserError naming the folder or file.
    """
    path, side = _place(request.place)
    train = path / "train"
    if not train.is_dir():
        raise UserError(f"{train}: no such folder; write imagefolder:PATH with the folder that holds train")
    test = next((path / name for name in _TEST_NAMES if (path / name).is_dir()), None)
    if test is None:
        raise UserError(f"{path}: holds no folder {', '.join(_TEST_NAMES)}; add the test images there")
    names = _classes(train)
    files, labels = _files(train, names)
    for name, count in zip(names, torch.bincount(torch.tensor(labels), minlength=len(names)), strict=True):
        if count == 0:
            raise UserError(f"{train / name}: holds no image ({', '.join(_SUFFIXES)}); add some or remove it")
    remedy = f"write imagefolder:{path}@SIZE to resize all"
    images = _images(files, labels, request.train_rows, side, remedy, None)
    options = request.test_rows, side, remedy, images.x.shape[1]
    return ImageDataset(request.name, images, names, partial(_load_test, test, names, *options))


def _load_test(
    folder: Path,
    names: tuple[str, ...],
    rows: Callable[[int], Tensor],
    side: int | None,
    remedy: str,
    channels: int,
) -> Images:
    unknown = sorted(set(_classes(folder)) - set(names))
    if unknown:
        raise UserError(f"{folder / unknown[0]}: no such class in the training images; rename or remove it")
    files, labels = _files(folder, names)
    return _images(files, labels, rows, side, remedy, channels)


def _place(text: str) -> tuple[Path, int | None]:
    """``"PATH@32"`` -> (PATH, 32); a path that exists as written is never cut."""
    path, at, size = text.rpartition("@")
    if not at or Path(text).expanduser().exists():
        return Path(text).expanduser(), None
    if not (size.isascii() and size.isdigit() and 1 <= int(size) <= 4096):
        raise UsageError(f"--dataset: '@{size}' is not a size; write for example imagefolder:PATH@32")
    return Path(path).expanduser(), int(size)


def _classes(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if not names:
        raise UserError(f"{folder}: holds no class folders; put the images into {folder}/CLASS")
    return names


def _files(folder: Path, names: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    """Every image below ``folder`` and its class, in alphabetical order; other files are not images."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        if (folder / name).is_dir():
            found = sorted(file for file in (folder / name).iterdir() if file.suffix.lower() in _SUFFIXES)
            files += found
            labels += [label] * len(found)
    return files, labels


def _images(
    files: list[Path],
    labels: list[int],
    rows: Callable[[int], Tensor],
    side: int | None,
    remedy: str,
    channels: int | None,
) -> Images:
    chosen = rows(len(files))
    encoded = Encoded.files([files[row] for row in chosen.tolist()])
    x = decode_all(encoded, side=side, channels=channels, remedy=remedy)
    return Images(x, torch.tensor(labels, dtype=torch.int64)[chosen])
