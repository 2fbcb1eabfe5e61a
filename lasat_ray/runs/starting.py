"""The first weights of a net that is trained on: a run's or a checkpoint's, or a file's from elsewhere.

Files are read as ``evaluate --weights`` reads them (``foreign.py``). Weights alone are taken, so that no code
is run that a checkpoint names. Where the net tells another number of classes apart than the file's, its head,
the tensors whose shape goes by that number, keeps its own first weights; everything else has to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lasat_ray.config.files import check_regular
from lasat_ray.data.classes import Classes, check_same, classes_of_names
from lasat_ray.errors import UsageError, UserError, refusal
from lasat_ray.models import architecture, build_classifier
from lasat_ray.models.backbone import ImageShape
from lasat_ray.models.classifier import Classifier, channel_values
from lasat_ray.runs.checkpoint import FORMAT
from lasat_ray.runs.foreign import Values, open_foreign
from lasat_ray.runs.load import checkpoint_file, fill, read_checkpointed, read_weights
from lasat_ray.runs.recognize import twin_of

OPTION = "--init-from"
Head = Mapping[str, int]
"""Name of a tensor whose shape goes by the number of classes -> the dimension that does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is to be trained: the net's name, its ``classes``, images (C,H,W), whether its head shall be new,
    the ``mean`` and ``std`` that its pixels are normalized with, and ``images``, which gives some of those
    [B,C,H,W] in [0,1] that it will see."""

    model: str
    classes: Classes
    image_shape: ImageShape
    new_head: bool = False
    mean: Values = 0.0
    std: Values = 1.0
    images: Callable[[], Tensor] | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """Weights by the names of our net, how many classes they tell apart, and what our checkpoint calls the
    net; None for a file from elsewhere."""

    weights: Mapping[str, Tensor]
    num_classes: int
    model: str | None = None


def start_from(net: Classifier, path: str, wanted: Wanted) -> list[str]:
    """Fill ``net`` with the weights behind ``path``; what a person should be told about it.

    UserError or UsageError in one line for a file that is no such thing, is of another architecture, or
    numbers other classes; it names the first weight or class that differs.
    """
    file, count = _file(Path(path)), len(wanted.classes)
    found = _of_ours(file, wanted) if is_checkpoint(file) else _from_elsewhere(file, wanted)
    weights, notes = dict(found.weights), []
    if found.num_classes != count or wanted.new_head:
        head = head_of(wanted.model, count, wanted.image_shape)
        if not head:
            raise UsageError(
                f"{OPTION}: '{path}' tells {found.num_classes} classes apart and the images {count}, and "
                f"nothing in '{wanted.model}' goes by that number; make its last layer of num_classes outputs"
            )
        weights |= {name: value for name, value in net.state_dict().items() if name in head}
        names = ", ".join(name.removeprefix("backbone.") for name in head)
        same = found.num_classes == count
        why = "as --new-head asks" if same else f"{found.num_classes} classes there, {count} here"
        notes = [f"{OPTION}: '{path}' gives all weights but those of {names}, which begin anew: {why}"]
    try:
        fill(net, weights, path)
    except UserError as error:
        if found.model in (None, wanted.model):
            raise
        told = str(error).rpartition(";")[0]
        raise UserError(f"{told}; its net is {found.model}, give --model {found.model}") from error
    return notes


def is_checkpoint(file: Path) -> bool:
    """Whether a file says that it is a checkpoint of ours; an export of ours is a file like others."""
    check_regular(file)
    if file.suffix != ".safetensors":
        return False
    try:
        with safe_open(file, framework="pt") as opened:
            return (opened.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError, ValueError):
        return file.parent.name == "checkpoints"  # a damaged one; its reader tells what is wrong


def head_of(model: str, num_classes: int, image_shape: ImageShape) -> dict[str, int]:
    """The tensors of a net by name that take another shape with one class more, each with the dimension that
    grows; none where a net does not ask how many classes there are."""
    with torch.random.fork_rng(devices=[]):
        try:
            less, more = (
                build_classifier(
                    architecture(model), num_classes=count, image_shape=image_shape, field="--model"
                )
                for count in (num_classes, num_classes + 1)
            )
        except UserError:
            return {}
    head = {}
    for name, value in more.state_dict().items():
        before = less.state_dict().get(name)
        if before is not None and before.shape != value.shape and before.ndim == value.ndim:
            head[name] = next(n for n, size in enumerate(before.shape) if size != value.shape[n])
    return head


def _file(path: Path) -> Path:
    """The file of weights that a run folder or a file's name stands for."""
    return checkpoint_file(path) if not path.exists() or path.is_dir() else path


def _of_ours(file: Path, wanted: Wanted) -> _Found:
    """The weights of a checkpoint of ours."""
    card, weights = read_checkpointed(file)
    if card["num_classes"] == len(wanted.classes) and not wanted.new_head:
        check_numbering(OPTION, str(file), card, wanted.classes, ", or begin its head anew with --new-head")
    if wanted.model == twin_of(card["model"]) or card["model"] == twin_of(wanted.model):
        raise UsageError(
            f"{OPTION}: '{file}' is {card['model']}, whose keys are those of '{wanted.model}' and which "
            f"computes something else; give --model {card['model']}"
        )
    for name, value, neutral in (("mean", wanted.mean, 0.0), ("std", wanted.std, 1.0)):
        asked = channel_values(name, value, wanted.image_shape[0])
        own = weights.get(name)
        if bool((asked != neutral).any()) and (own is None or not torch.equal(asked, own.to(asked))):
            what = f"is not that of '{file}', which holds its own normalization"
            raise refusal(f"--data.{name}", value, what, "leave it out")
    return _Found(weights, card["num_classes"], card["model"])


def check_numbering(
    option: str, path: str, card: Mapping[str, Any], classes: Classes, more: str = ""
) -> None:
    """UserError where the net of a card numbers other classes than the training images do."""
    theirs = classes_of_names(card.get("class_names", ()), card["num_classes"])
    remedy = f"name a net that was trained on the same classes{more}"
    check_same(theirs, classes, f"{option}: '{path}'", "the training images", remedy=remedy)


def _from_elsewhere(file: Path, wanted: Wanted) -> _Found:
    """The weights of a file by the names of our net."""
    count = len(wanted.classes)
    try:
        return _Found(_opened(file, wanted, count), count)
    except UserError:
        theirs = _classes_in(file, head_of(wanted.model, count, wanted.image_shape))
        if theirs is None or theirs == count:
            raise
    return _Found(_opened(file, wanted, theirs), theirs)


def _opened(file: Path, wanted: Wanted, count: int) -> Mapping[str, Tensor]:
    found = open_foreign(
        wanted.model,
        file,
        num_classes=count,
        image_shape=wanted.image_shape,
        mean=wanted.mean,
        std=wanted.std,
        images=wanted.images() if wanted.images else None,
    )
    if found.model.replace("_active", "") != architecture(wanted.model).replace("_active", ""):
        raise UsageError(f"{OPTION}: '{file}' holds the weights of {found.model}; give --model {found.model}")
    return found.net.state_dict()


def _classes_in(file: Path, head: Head) -> int | None:
    """How many classes a file's weights tell apart, by the tensors that end like the head's; None where they
    do not say."""
    read, sizes = read_weights(file), set()
    for name, axis in head.items():
        ending = name.removeprefix("backbone.").removeprefix("net.")
        found = [value for key, value in read.items() if f".{key}".endswith(f".{ending}")]
        sizes |= {value.shape[axis] for value in found if value.ndim > axis}
    return sizes.pop() if len(sizes) == 1 else None
