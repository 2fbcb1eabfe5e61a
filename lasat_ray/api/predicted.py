"""What a net says of images: classes, how sure it is, and how sure it stays under attack; for
``lasat_ray.predict`` and the command of that name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from tyro.conf import Positional, arg

from lasat_ray.api.attacking import attack
from lasat_ray.cli.run_options import Switch
from lasat_ray.config import Budget, DataConfig
from lasat_ray.config.json_io import read_config
from lasat_ray.data.arrays import checked_floats
from lasat_ray.data.decode import fitted, read_image, suffixes
from lasat_ray.errors import UsageError, UserError, check_least, refusal
from lasat_ray.evaluation.carried import carried
from lasat_ray.models import dtype_of
from lasat_ray.models.backbone import ImageShape
from lasat_ray.runs.load import checkpoint_file, load_checkpointed
from lasat_ray.runs.trust import check_folder

Shown = Path | Image.Image | Tensor
"""An image file, an image of PIL, or pixels [C,H,W], uint8 or floats in [0,1]."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Which net, which images, and how they are told."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder, checkpoint, or a folder or safetensors file that lasat_ray.export wrote."""
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE [IMAGE ...]", help_behavior_hint="")]
    """Image files, and folders of them."""
    format: Literal["table", "csv", "json"] = "table"
    """json is an object a line."""
    out: str | None = None
    """New file for csv or json; None prints them."""
    top: int = 1
    """The likeliest classes, so many of them."""
    under_attack: Switch = False
    """Also attack each image, away from the class that the net names: whether it withstands."""
    eps: Budget | None = None
    """With --under-attack: budget in [0,1] pixels; None means the run's own."""
    num_steps: int = 20
    """With --under-attack: PGD steps."""
    batch_size: int = 64
    """Images passed at once."""
    which: Literal["best", "last"] = "best"
    """Checkpoint of a run folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    trust: Switch = False
    """Run the code that the run names as module:function."""
    debug: Switch = False
    """Show tracebacks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """A net ready for images: its classes, images (C,H,W), how files are read, and the ``norm`` and
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
    config = file.parent.parent / "config.json"
    data = DataConfig()
    if file.parent.name == "checkpoints" and config.is_file():
        data = read_config(config, complete=True).data
    return predictor_of(net, carried(net, card, file), data, device)


def predictor_of(
    net: nn.Module, card: Mapping[str, Any], data: DataConfig, device: torch.device
) -> Predictor:
    """A net by what its ``card`` says of it; ``data``: how files are read."""
    return Predictor(
        net=net,
        classes=tuple(card.get("class_names") or map(str, range(card["num_classes"]))),
        image_shape=tuple(card["image_shape"]),
        data=data,
        norm=card.get("norm") or "linf",
        eps=card.get("eps"),
        device=device,
    )


def image_files(places: Sequence[str | Path], field: str = "IMAGE") -> list[Path]:
    """Files as they are named, and all images below a folder in the order of their names.

    UsageError, in the name of ``field``, for a place that is not there, or a folder without images.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise UsageError(f"{field}: '{place}' is no file and no folder; check the path")
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
                f"{field}: folder '{place}' holds no image ({', '.join(suffixes())}); name another"
            )
        files += below
    return files


def check_options(options: PredictOptions) -> None:
    """UsageError for what is out of range or would have no effect."""
    least = {"top": options.top, "num-steps": options.num_steps, "batch-size": options.batch_size}
    check_least({name: (1, value) for name, value in least.items()})
    if options.eps is not None and not options.eps > 0:
        raise refusal("--eps", f"{options.eps:g}", "is no budget", "give more than 0, say 8/255")
    for name, value, default in (("eps", options.eps, None), ("num-steps", options.num_steps, 20)):
        if value != default and not options.under_attack:
            raise refusal(f"--{name}", value, "has no effect without --under-attack", "add it")


def attack_of(options: PredictOptions, of: Predictor) -> UnderAttack | None:
    """The attack that is asked for; UsageError where neither options nor the net's card name a budget."""
    if not options.under_attack:
        return None
    eps = options.eps if options.eps is not None else of.eps
    if not eps:
        raise UsageError(f"--eps: '{options.run}' does not say what it withstands; give it, say 8/255")
    return UnderAttack(norm=of.norm, eps=eps, steps=options.num_steps)


def predicted(
    of: Predictor, images: Sequence[Shown], options: PredictOptions
) -> tuple[list[dict[str, Any]], UnderAttack | None]:
    """A row an image, in their order: ``image``, ``class``, ``confidence``, and ``class_2``, ``confidence_2``
    and so on of the ``top`` classes; under attack also ``class_under_attack``, ``confidence_under_attack``
    (what is left for the class that it named) and ``withstands``. Beside the rows the attack, None where
    none was asked for.

    UserError naming the file that is no image; UsageError as ``attack_of``.
    """
    under, rows = attack_of(options, of), []
    for first in range(0, len(images), options.batch_size):
        some = images[first : first + options.batch_size]
        x = torch.stack([_pixels(image, first + n, of) for n, image in enumerate(some)])
        with torch.no_grad():
            p = _probabilities(of.net, x)
        names = [_name(image, first + n) for n, image in enumerate(some)]
        new = _rows(names, of.classes, p, min(options.top, len(of.classes)))
        if under is not None:
            _attack(of, x, p.argmax(1), new, under)
        rows += new
    return rows, under


def _name(image: Shown, place: int) -> str:
    """How a row calls an image: by its file, else by its place, counted from 0."""
    return str(image) if isinstance(image, Path) else str(getattr(image, "filename", "") or place)


def _pixels(image: Shown, place: int, of: Predictor) -> Tensor:
    """One image as the net takes it, floats [C,H,W] in [0,1] where the net lies."""
    shape, background, fit = of.image_shape, of.data.background, of.data.fit
    if isinstance(image, Path):
        pixels = read_image(image, shape, background=background, fit=fit)
    elif isinstance(image, Image.Image):
        where_from = f"images: image {_name(image, place)}"
        pixels = fitted(image, where_from, shape, background=background, fit=fit)
    else:
        pixels = image
    where, dtype = of.device, dtype_of(of.net)
    if pixels.dtype == torch.uint8:
        return pixels.to(where, dtype).div_(255)
    return checked_floats(pixels, "images").to(where, dtype)


def _probabilities(net: nn.Module, x: Tensor) -> Tensor:
    p = net(x).softmax(1)
    if not bool(p.isfinite().all()):
        raise UserError("net: gives logits that are not finite; its weights are damaged, train it anew")
    return p


def _rows(names: Sequence[str], classes: Sequence[str], p: Tensor, top: int) -> list[dict[str, Any]]:
    best = p.topk(top)
    rows = []
    for name, shares, numbers in zip(names, best.values.tolist(), best.indices.tolist(), strict=True):
        row: dict[str, Any] = {"image": name}
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
