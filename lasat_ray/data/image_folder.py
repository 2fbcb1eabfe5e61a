"""One folder a class: PATH/train/CLASS/*.png and the same under test, val, valid or validation."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lasat_ray.data.classes import Classes
from lasat_ray.data.decode import Background, Encoded, Fit, check_headers, decode_all, suffixes
from lasat_ray.data.images import ImageDataset, Images, Request
from lasat_ray.data.part import Part, Shape, make_dataset, told_counts
from lasat_ray.errors import UsageError, UserError, refusal

TEST_NAMES = ("test", "val", "valid", "validation")


@dataclass(frozen=True, slots=True)
class Reader:
    """How the files of one set are decoded; ``remedy`` ends the message about unequal sizes."""

    side: int | None
    fit: Fit
    background: Background
    remedy: str

    def decode(self, files: Sequence[Path], channels: int | None) -> tuple[Tensor, Counter[str]]:
        """uint8 [N,C,H,W], and what was done to how many."""
        notes: Counter[str] = Counter()
        x = decode_all(
            Encoded.files(files),
            side=self.side,
            fit=self.fit,
            channels=channels,
            remedy=self.remedy,
            background=self.background,
            notes=notes,
        )
        return x, notes


def load(request: Request) -> ImageDataset:
    """``imagefolder:PATH`` or ``imagefolder:PATH@SIZE``, which resizes every image to SIZE x SIZE.

    Classes are the folders of PATH/train in alphabetical order; images may lie in folders below them.
    UserError naming the folder or file.
    """
    path, reader = _place(request)
    train = path / "train"
    if not train.is_dir():
        raise UserError(f"{train}: no such folder; write imagefolder:PATH with the folder that holds train")
    tests = test_folders(path)
    names = _classes(train)
    files, labels, skipped = walk(train, names)
    for name, count in zip(names, torch.bincount(torch.tensor(labels), minlength=len(names)), strict=True):
        if count == 0:
            kinds = ", ".join(suffixes())
            raise UserError(f"{train / name}: holds no image ({kinds}); add some or remove it")
    rows = request.train_rows(len(files))
    x, done = reader.decode([files[row] for row in rows.tolist()], None)
    images = Images(x, torch.tensor(labels, dtype=torch.int64)[rows])
    notes = [*skipped_told(train, skipped), *told_counts(str(train), done)]
    openers = tuple(partial(open_part, folder, reader) for folder in tests)
    return make_dataset(request, images, Classes(names), openers, available=len(files), notes=notes)


def open_test(request: Request) -> tuple[partial[Part], ...]:
    """The test parts of PATH, or PATH itself where the class folders lie in it, without training images.

    UserError where there is no such folder.
    """
    path, reader = _place(request)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; write imagefolder:PATH with the folder that holds test")
    found = [path / name for name in TEST_NAMES if (path / name).is_dir()]
    return tuple(partial(open_part, folder, reader) for folder in found or [path])


def test_folders(path: Path) -> list[Path]:
    """The folders that may hold the test images, best first; UserError where there is none."""
    found = [path / name for name in TEST_NAMES if (path / name).is_dir()]
    if not found:
        raise UserError(f"{path}: holds no folder {', '.join(TEST_NAMES)}; add the test images there")
    return found


def open_part(folder: Path, reader: Reader) -> Part:
    """The images of one folder of class folders. Images that lie in it directly have no label."""
    direct = [entry for entry in sorted(folder.iterdir()) if _named(entry.name) and not entry.is_dir()]
    names = _classes(folder, required=not direct)
    files, labels, skipped = walk(folder, names)
    if not files and direct:
        files, labels = direct, [-1] * len(direct)
    elif direct:
        skipped["outside of a class folder"] += len(direct)

    def read(rows: Tensor, channels: int | None) -> tuple[Tensor, Counter[str]]:
        return reader.decode([files[row] for row in rows.tolist()], channels)

    def look(rows: Tensor, shape: Shape) -> None:
        some = Encoded.files([files[row] for row in rows.tolist()])
        check_headers(some, shape, sized=reader.side is None, remedy=reader.remedy)

    listed = hashlib.sha256()
    for file in files:
        listed.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
    return Part(
        where=str(folder),
        labels=np.array(labels, dtype=np.int64),
        classes=Classes(names),
        read=read,
        look=look,
        identity=listed.hexdigest(),
        notes=tuple(skipped_told(folder, skipped)),
        row_name=lambda row: str(files[row]),
    )


def walk(folder: Path, names: Sequence[str]) -> tuple[list[Path], list[int], Counter[str]]:
    """Every image below ``folder``/CLASS and its label, and how many files are left out for which reason.

    Folders are walked as torchvision walks them: in the order of their names, links followed.
    """
    files: list[Path] = []
    labels: list[int] = []
    skipped: Counter[str] = Counter()
    for label, name in enumerate(names):
        for place, inside in sorted(_below(folder / name)):
            for entry in sorted(inside):
                if _named(entry):
                    files.append(Path(place, entry))
                    labels.append(label)
                else:
                    skipped["hidden" if entry[0] == "." else "with no image's ending"] += 1
    return files, labels, skipped


def skipped_told(folder: Path, skipped: Counter[str]) -> list[str]:
    """``PATH: 3 files left out: 2 hidden, 1 with no image's ending``; nothing where none is."""
    if not skipped:
        return []
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items()))
    return [f"{folder}: {skipped.total():,} files left out: {reasons}"]


def _below(folder: Path) -> list[tuple[str, list[str]]]:
    """Every folder from ``folder`` on, hidden ones aside, and the names in it that may be images.

    A link that leads back into the walk, or to a folder above it, is not followed.
    """
    found: list[tuple[str, list[str]]] = []
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}
    for place, below, inside in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in seen:
            below[:] = []
            continue
        seen.add(os.path.realpath(place))
        like_images = [name for name in below if _named(name)]  # refused by name when they are read
        below[:] = [name for name in below if name[0] != "." and name not in like_images]
        found.append((place, inside + like_images))
    return found


def _named(name: str) -> bool:
    return name[0] != "." and Path(name).suffix.lower() in suffixes()


def _place(request: Request) -> tuple[Path, Reader]:
    """``"PATH@32"`` -> (PATH, a reader that resizes to 32); a path that exists as written is never cut."""
    text = request.place
    path, at, size = text.rpartition("@")
    whole = not at or Path(text).expanduser().exists()
    options = request.options
    if not whole and options.image_size is not None:
        what = f"stands beside '@{size}' of --dataset"
        raise refusal("--data.image-size", options.image_size, what, "give one of the two")
    if whole:
        found, side = Path(text).expanduser(), options.image_size
    elif not (size.isascii() and size.isdigit() and 1 <= int(size) <= 4096):
        raise UsageError(f"--dataset: '@{size}' is not a size; write for example imagefolder:PATH@32")
    else:
        found, side = Path(path).expanduser(), int(size)
    remedy = f"write imagefolder:{found}@SIZE to resize all"
    return found, Reader(side, options.fit, options.background, remedy)


def _classes(folder: Path, *, required: bool = True) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if not names and required:
        raise UserError(f"{folder}: holds no class folders; put the images into {folder}/CLASS")
    return names
