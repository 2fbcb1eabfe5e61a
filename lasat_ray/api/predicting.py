"""What a net says of image files: classes, how sure it is, and how sure it stays under attack."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.api.attacking import attack
from lasat_ray.config import DataConfig
from lasat_ray.config.json_io import read_config
from lasat_ray.data.decode import read_image, suffixes
from lasat_ray.errors import UsageError, UserError
from lasat_ray.evaluation.carried import carried
from lasat_ray.models import dtype_of
from lasat_ray.models.backbone import ImageShape
from lasat_ray.runs.load import checkpoint_file, load_checkpointed
from lasat_ray.runs.trust import check_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """A net ready for image files: its classes, images (C,H,W), how files are read, and the ``norm`` and
    ``eps`` (in [0,1] pixels; None: unknown) that it was made to withstand."""

    net: nn.Module
    classes: tuple[str, ...]
    image_shape: ImageShape
    data: DataConfig
    norm: str
    eps: float | None
    device: torch.device


@dataclass(frozen=True, kw_only=True, slots=True)
class UnderAttack:
    """PGD with so many steps within ``eps`` (in [0,1] pixels) in ``norm``, away from what the net says."""

    norm: str
    eps: float
    steps: int
    seed: int = 0


def predictor(path: Path, *, which: str, trust: bool, device: torch.device) -> Predictor:
    """The net of a run folder, a checkpoint or an export; its files are read as its run reads them."""
    check_folder(path, trust)
    file = checkpoint_file(path, which)
    net, card = load_checkpointed(file, device=device, trust=trust)
    told = carried(net, card, file)
    config = file.parent.parent / "config.json"
    data = DataConfig()
    if file.parent.name == "checkpoints" and config.is_file():
        data = read_config(config, complete=True).data
    names = tuple(card.get("class_names") or map(str, range(card["num_classes"])))
    return Predictor(
        net=net,
        classes=names,
        image_shape=tuple(card["image_shape"]),
        data=data,
        norm=told.get("norm") or "linf",
        eps=told.get("eps"),
        device=device,
    )


def image_files(places: Sequence[str]) -> list[Path]:
    """Files as they are named, and all images below a folder in the order of their names.

    UsageError for a place that is not there, or a folder without images.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise UsageError(f"IMAGE: '{place}' is no file and no folder; check the path")
        if not place.is_dir():
            files.append(place)
            continue
        below = [
            Path(folder, name)
            for folder, _, names in sorted(os.walk(place))
            for name in sorted(names)
            if name[0] != "." and Path(name).suffix.lower() in suffixes()
        ]
        if not below:
            raise UsageError(
                f"IMAGE: folder '{place}' holds no image ({', '.join(suffixes())}); name another"
            )
        files += below
    return files


def predictions(
    of: Predictor, files: Sequence[Path], *, top: int, batch_size: int, under: UnderAttack | None
) -> Iterator[dict[str, Any]]:
    """A row a file, in their order: ``image``, ``class``, ``confidence``, and ``class_2``, ``confidence_2``
    and so on of the ``top`` classes; ``under`` attack also ``class_under_attack``,
    ``confidence_under_attack`` (what is left for the class that it named) and ``withstands``.

    UserError naming the file that is no image.
    """
    shape = of.image_shape
    for first in range(0, len(files), batch_size):
        some = files[first : first + batch_size]
        read = [read_image(f, shape, background=of.data.background, fit=of.data.fit) for f in some]
        x = torch.stack(read).to(of.device, dtype_of(of.net)).div_(255)
        with torch.no_grad():
            p = _probabilities(of.net, x)
        rows = _rows(some, of.classes, p, min(top, len(of.classes)))
        if under is not None:
            _attack(of, x, p.argmax(1), rows, under)
        yield from rows


def _probabilities(net: nn.Module, x: Tensor) -> Tensor:
    p = net(x).softmax(1)
    if not bool(p.isfinite().all()):
        raise UserError("net: gives logits that are not finite; its weights are damaged, train it anew")
    return p


def _rows(files: Sequence[Path], classes: Sequence[str], p: Tensor, top: int) -> list[dict[str, Any]]:
    best = p.topk(top)
    rows = []
    for file, shares, numbers in zip(files, best.values.tolist(), best.indices.tolist(), strict=True):
        row: dict[str, Any] = {"image": str(file)}
        for place, (share, number) in enumerate(zip(shares, numbers, strict=True), 1):
            ending = "" if place == 1 else f"_{place}"
            row |= {f"class{ending}": classes[number], f"confidence{ending}": share}
        rows.append(row)
    return rows


def _attack(of: Predictor, x: Tensor, y: Tensor, rows: list[dict[str, Any]], under: UnderAttack) -> None:
    """Add to the rows what the net says of the images after an attack on what it said."""
    x_adv = attack(of.net, x, y, eps=under.eps, steps=under.steps, norm=under.norm, seed=under.seed)
    with torch.no_grad():
        p = _probabilities(of.net, x_adv)
    after, left = p.argmax(1).tolist(), p.gather(1, y[:, None])[:, 0].tolist()
    for row, number, share, own in zip(rows, after, left, y.tolist(), strict=True):
        row |= {
            "class_under_attack": of.classes[number],
            "confidence_under_attack": share,
            "withstands": number == own,
        }
