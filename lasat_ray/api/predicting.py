"""``lasat_ray.predict``: classes of images, and whether they withstand an attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from lasat_ray.api.arguments import budget, device_of, one_of
from lasat_ray.api.loading import is_stored, path_of
from lasat_ray.api.predicted import (
    PredictOptions,
    Predictor,
    Shown,
    UnderAttack,
    check_options,
    image_files,
    predicted,
    predictor,
    predictor_of,
)
from lasat_ray.api.results import html_table, percent
from lasat_ray.api.words import in_python
from lasat_ray.cluster.local import choose_device
from lasat_ray.config import DataConfig
from lasat_ray.config.units import format_threat
from lasat_ray.data.arrays import channels_first
from lasat_ray.errors import UsageError
from lasat_ray.models import Classifier


@dataclass(frozen=True, eq=False)
class PredictResult:
    """What a net says of images.

    ``summary``: a row an image, in their order: ``image`` (its file, or its place counted from 0), ``class``
    and ``confidence`` (a share of 1); ``class_2``, ``confidence_2`` and so on of the ``top``; under attack
    also ``class_under_attack``, ``confidence_under_attack`` (what is left for the class that was named) and
    ``withstands``. ``under``: that attack, None where none was asked for.
    """

    summary: list[dict[str, Any]]
    under: UnderAttack | None = None

    @property
    def heads(self) -> tuple[str, ...]:
        """The columns of ``cells``."""
        second = ["then next"] if any("class_2" in row for row in self.summary) else []
        return ("image", "class", *second, *(["under attack"] if self.under else []))

    @property
    def title(self) -> str:
        """The attack in words; nothing where there was none."""
        return (
            f"PGD-{self.under.steps}, {format_threat(self.under.norm, self.under.eps)}" if self.under else ""
        )

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as a person reads them."""
        return [self._told(row) for row in self.summary]

    def _told(self, row: dict[str, Any]) -> tuple[str, ...]:
        told = [row["image"], _share(row["class"], row["confidence"])]
        if "then next" in self.heads:
            places = range(2, 2 + sum(name.startswith("class_") and name[6:].isdigit() for name in row))
            told.append(", ".join(_share(row[f"class_{n}"], row[f"confidence_{n}"]) for n in places))
        if self.under:
            left = f"{row['class']} keeps {percent(row['confidence_under_attack'])}"
            told.append(left if row["withstands"] else f"{row['class_under_attack']} ({left})")
        return tuple(told)

    def __len__(self) -> int:
        return len(self.summary)

    def __repr__(self) -> str:
        held = sum(row["withstands"] for row in self.summary) if self.under else 0
        attacked = f", {held} withstand {self.title}" if self.under else ""
        return f"PredictResult({len(self)} images{attacked})"

    def _repr_html_(self) -> str:
        return html_table(self.title, self.heads, self.cells())


def _share(name: str, confidence: float) -> str:
    return f"{name} {percent(confidence)}"


@in_python
def predict(
    net: Any,
    images: Any,
    /,
    *,
    top: int = 1,
    under_attack: bool = False,
    eps: float | str | None = None,
    num_steps: int = 20,
    batch_size: int = 64,
    which: str = "best",
    device: str = "auto",
    trust: bool = False,
) -> PredictResult:
    """Classes of images, how sure the net is, and whether they withstand an attack; what ``python -m
    lasat_ray.predict`` does.

    ``net``: what ``train`` gave back, a run folder, a checkpoint, an export, or what ``load_model`` gave.
    ``images``: image files and folders of them, images of PIL, or several of these in a list, of any size:
    they are read and resized as the run reads its own; or one array or tensor, [N,C,H,W], [N,H,W,C] or
    [N,H,W], uint8 or floats in [0,1], of the size that the net takes. ``top``: the likeliest classes, so many
    of them. ``under_attack``: also move every image within ``eps`` (in [0,1] pixels or as "8/255"; None: what
    the net was made to withstand) away from the class that the net names, by ``num_steps`` steps of PGD.
    ``batch_size``: images passed at once. ``which``, ``device`` and ``trust`` as for ``load_model``; a net
    that was loaded stays where it is.

    UsageError or UserError in one line for whatever cannot work.
    """
    options = PredictOptions(
        run=str(path_of(net)[0]) if is_stored(net) else "net",
        images=(),
        top=top,
        under_attack=under_attack,
        eps=budget("eps", eps),
        num_steps=num_steps,
        batch_size=batch_size,
        which=one_of("which", which, ("best", "last")),
        device=one_of("device", device, ("auto", "cpu", "cuda")),
        trust=trust,
    )
    check_options(options)
    of = _predictor(net, options)
    return PredictResult(*predicted(of, _shown(images, of), options))


def _predictor(net: Any, options: PredictOptions) -> Predictor:
    if isinstance(net, Classifier) and net.card:
        where = device_of(net) if options.device == "auto" else choose_device(options.device)
        assert where is not None, "every classifier has buffers"
        return predictor_of(net.to(where), net.card, DataConfig(), where)
    if isinstance(net, nn.Module):
        raise UsageError(
            f"net: {type(net).__name__} does not say what its classes and image sizes are; give a run, or "
            "what load_model gave"
        )
    path, trusted = path_of(net)
    device = choose_device(options.device)
    return predictor(path, which=options.which, trust=options.trust or trusted, device=device)


def _shown(images: Any, of: Predictor) -> list[Shown]:
    """Each image by itself; UsageError or UserError where they are none, or of a size that the net does not
    take."""
    if isinstance(images, (str, Path, Image.Image)):
        images = [images]
    if isinstance(images, (Tensor, np.ndarray)):
        x = channels_first(images, "images")
        if len(x) and tuple(x.shape[1:]) != of.image_shape:
            raise UsageError(
                f"images: are {tuple(x.shape[1:])} (C,H,W) and the net takes {of.image_shape}; resize them, "
                "or give images of PIL or files, which are resized here"
            )
        return list(x)
    if not isinstance(images, Sequence):
        raise UsageError(
            f"images: {type(images).__name__} is no image; give files, images of PIL, or one array [N,H,W,C]"
        )
    shown: list[Shown] = []
    for n, image in enumerate(images):
        if isinstance(image, Image.Image):
            shown.append(image)
        elif isinstance(image, (str, Path)):
            shown += image_files([image], "images")
        else:
            raise UsageError(
                f"images: item {n} is {type(image).__name__}; give files or images of PIL, or all pixels as "
                "one array [N,H,W,C]"
            )
    return shown
