"""Test images as CIFAR-10-C and CIFAR-10.1 are published: .npy files of images, and one of labels.

``npz:FOLDER`` takes all corruptions of CIFAR-10-C, ``npz:FOLDER/fog.npy`` one of them, and
``npz:FOLDER/fog.npy@3`` its third severity of five. A folder of CIFAR-10.1 holds one or more NAME_data.npy,
each with its NAME_labels.npy, and is read where there is one. ``cifar10.1`` by name is version 6 of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lasat_ray.config.files import check_regular
from lasat_ray.data.classes import Classes
from lasat_ray.data.guard import MAX_CLASSES, check_bytes, reading
from lasat_ray.data.images import Request
from lasat_ray.data.part import Part, Shape
from lasat_ray.errors import UsageError, UserError

LABELS, DATA = "labels.npy", "_data.npy"
CIFAR10 = Classes(
    (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
)
SEVERITIES = 5


def is_published(path: Path) -> bool:
    """A .npy file, one of its severities, or a folder of them."""
    if path.suffix == ".npy" or ".npy@" in path.name:
        return True
    return path.is_dir() and ((path / LABELS).is_file() or any(path.glob(f"*{DATA}")))


def image_files(folder: Path) -> list[Path]:
    """The files of images in a folder, by name; UserError where there is none."""
    files = [file for file in sorted(folder.glob("*.npy")) if not file.name.endswith((LABELS, f"_{LABELS}"))]
    files = [file for file in files if file.name[0] != "."]
    if not files:
        raise UserError(f"{folder}: holds no .npy file of images; name a folder as CIFAR-10-C is published")
    return files


def open_test(path: Path) -> tuple[partial[Part], ...]:
    """What opens the images of a file, a severity or a folder."""
    if path.is_dir():
        files = image_files(path)
        if not (path / LABELS).is_file() and len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise UsageError(f"--dataset: '{path}' holds {names}; name one of them, npz:{files[-1]}")
        return (partial(open_part, tuple(files), None),)
    name, at, severity = path.name.rpartition("@")
    if not at or path.exists():
        return (partial(open_part, (path,), None),)
    if severity not in map(str, range(1, SEVERITIES + 1)):
        raise UsageError(f"--dataset: '@{severity}' is no severity; write {name}@1 to {name}@{SEVERITIES}")
    return (partial(open_part, (path.with_name(name),), int(severity)),)


def open_cifar10_1(request: Request) -> tuple[partial[Part], ...]:
    """``cifar10.1`` (Recht et al. 2019): 2,000 new test images of CIFAR-10's classes, two files in root.

    UserError where they are not there."""
    file = request.root / f"cifar10.1_v6{DATA}"
    names = f"{file.name} and cifar10.1_v6_{LABELS}"
    for part in (file, file.with_name(f"cifar10.1_v6_{LABELS}")):
        if not part.is_file():
            told = f"put {names} of https://github.com/modestyachts/CIFAR-10.1 into {request.root}"
            raise UserError(f"cifar10.1: {part} is missing; {told}")
    return (partial(_open_cifar10_1, file),)


def _open_cifar10_1(file: Path) -> Part:
    return replace(open_part((file,), None), classes=CIFAR10)


def open_part(files: tuple[Path, ...], severity: int | None) -> Part:
    """The labels of some files of images, each as long as the labels; images are read when asked for."""
    label_N = [_labels(file) for file in files]
    images = [_mapped(file) for file in files]
    for file, image, label in zip(files, images, label_N, strict=True):
        fits = image.dtype == np.uint8 and image.ndim == 4 and image.shape[3] in (1, 3)
        if not fits or len(image) != len(label) or image.shape[1:] != images[0].shape[1:]:
            raise UserError(
                f"{file}: {image.dtype} of shape {image.shape} for {len(label)} labels; "
                f"want uint8 [N,H,W,1] or [N,H,W,3], all files alike"
            )
    if severity is not None:
        if len(label_N[0]) % SEVERITIES:
            raise UserError(
                f"{files[0]}: {len(label_N[0])} images are no {SEVERITIES} equal severities; "
                f"leave @{severity} out"
            )
        share = len(label_N[0]) // SEVERITIES
        images = [image[(severity - 1) * share : severity * share] for image in images]
        label_N = [label[(severity - 1) * share : severity * share] for label in label_N]
    labels = np.concatenate(label_N).astype(np.int64)
    ends = np.cumsum([len(image) for image in images])

    def read(rows: Tensor, channels: int | None) -> tuple[Tensor, Counter[str]]:
        check_bytes(len(rows) * int(np.prod(images[0].shape[1:])), str(files[0]))
        out = np.empty((len(rows), *images[0].shape[1:]), dtype=np.uint8)
        of = np.searchsorted(ends, rows.numpy(), side="right")
        for number in np.unique(of):
            inside = rows.numpy()[of == number] - (ends[number] - len(images[number]))
            out[of == number] = images[number][inside]
        return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous(), Counter()

    return Part(
        where=str(files[0] if len(files) == 1 else files[0].parent),
        labels=labels,
        classes=Classes.numbered(min(int(labels.max(initial=-1)), MAX_CLASSES) + 1),
        read=read,
        look=lambda rows, shape: _look(files[0], images[0].shape, shape),
        identity=" ".join(f"{file.name} {file.stat().st_size}" for file in files),
    )


def _look(file: Path, found: tuple[int, ...], shape: Shape) -> None:
    own = (found[3], found[1], found[2])
    if own != tuple(shape):
        raise UserError(f"{file}: images are {own} (C,H,W), not {tuple(shape)}; bring both to one shape")


def _labels(file: Path) -> np.ndarray:
    """The labels beside a file: labels.npy, or NAME_labels.npy of NAME_data.npy."""
    beside = file.with_name(file.name.replace(DATA, f"_{LABELS}"))
    place = beside if beside != file and beside.is_file() else file.with_name(LABELS)
    label_N = np.asarray(_mapped(place))
    if label_N.ndim != 1 or label_N.dtype.kind not in "iu":
        raise UserError(f"{place}: {label_N.dtype} of shape {label_N.shape}; want integers [N]")
    return label_N


def _mapped(file: Path) -> np.ndarray:
    """The array in a file, not read into memory; never unpickles."""
    with reading(str(file)):
        check_regular(file)
        return np.load(file, mmap_mode="r", allow_pickle=False)
