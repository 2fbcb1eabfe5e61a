"""Nets with weights from elsewhere: RobustBench's files, state dicts of one's own, exports of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lasat_ray.errors import UsageError, UserError, refusal
from lasat_ray.models import architecture, build_classifier
from lasat_ray.models.backbone import ImageShape
from lasat_ray.models.classifier import Classifier
from lasat_ray.models.libraries import RepeatGrey
from lasat_ray.runs.load import UNUSED as COUNTER
from lasat_ray.runs.load import fill, read_weights, ready
from lasat_ray.runs.recognize import (
    STRANGE,
    UNUSED,
    WRAPPERS,
    Recognized,
    better,
    distances,
    recognize,
    take_normalization,
    twin_of,
    without_wrappers,
)

Values = float | Sequence[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """A net in evaluation mode, x [B,C,H,W] in [0,1] -> logits [B,N], the name of what it is, and what a
    person should be told about it."""

    net: nn.Module
    model: str
    notes: tuple[str, ...]


def load_foreign(
    model: str,
    weights: str | Path,
    *,
    num_classes: int,
    image_shape: ImageShape,
    mean: Values = 0.0,
    std: Values = 1.0,
    device: str | torch.device = "cpu",
    images: Tensor | None = None,
) -> nn.Module:
    """A net of ours or ``module:function`` with the weights of a file from elsewhere.

    The file holds a state dict, bare or under ``state_dict``, as torch.save or safetensors wrote
    it, with or without ``module.`` before its keys. Files of RobustBench's WideResNet, DMWideResNet,
    PreActResNet and DMPreActResNet fit ``wrn-DEPTH-WIDTH``, ``wrn-DEPTH-WIDTH-silu`` and
    ``preact_resnet18``, which stand for whichever net the file is of.
    ``mean`` and ``std`` are applied to pixels in [0,1] before the net, unless the file holds its own.
    ``images`` [B,C,H,W] in [0,1], such as the net was trained on, tell nets apart whose keys are equal.
    Returns x [B,C,H,W] in [0,1] -> logits [B,N], as ``load_model``. UserError naming the first key that is
    missing, unknown or of another shape; UsageError for a name or number that cannot be, and for a file
    that may be of either of two nets.
    """
    return open_foreign(
        model,
        Path(weights),
        num_classes=num_classes,
        image_shape=image_shape,
        mean=mean,
        std=std,
        images=images,
        device=device,
    ).net


def open_foreign(
    model: str,
    weights: Path,
    *,
    num_classes: int,
    image_shape: ImageShape,
    mean: Values,
    std: Values,
    images: Tensor | None,
    device: str | torch.device = "cpu",
) -> Foreign:
    """``load_foreign`` with what was recognized; the same errors."""
    build: Callable[..., Classifier] = partial(
        build_classifier, num_classes=num_classes, image_shape=image_shape
    )
    model = architecture(model)
    build(model)  # a name that cannot be is told before the file is read
    read, source = read_weights(weights), str(weights)
    if ":" in model:
        return _opened(
            _outside(model, read, build, mean, std, source), device, Recognized(model=model), images, source
        )
    given, pixel = take_normalization(read)
    exported = _exported(without_wrappers(read))
    if pixel is not None:
        _refuse_normalization(mean, std, source)
        mean, std = (_values(value, image_shape[0], source) for value in pixel)
    found = recognize(model, given, source)
    given = {key: value for key, value in given.items() if not key.startswith(UNUSED)}

    def make(name: str) -> Classifier:
        net = build(name, mean=mean, std=std)
        fill(net.backbone, given, source)
        return net

    net, twin = make(found.model), twin_of(found.model)
    if twin is not None:
        found, net = _decide(found, net, make(twin), twin, images, exported, source)
    return _opened(net, device, found, images, source)


def _decide(
    found: Recognized,
    net: Classifier,
    other: Classifier,
    twin: str,
    images: Tensor | None,
    ours: bool,
    source: str,
) -> tuple[Recognized, Classifier]:
    """The net that the statistics fit, where the keys fit two. ``ours``: the file is an export of ours, whose
    maker called the net by its name."""
    fits = better(distances(net, images), distances(other, images)) if images is not None else 0
    if fits < 0 and found.certain:
        raise UsageError(
            f"{source}: its BatchNorm statistics are those of {twin}, not of {found.model}, whose keys "
            f"are the same; name {twin}"
        )
    if found.certain or (ours and fits == 0):
        return found, net
    if fits == 0:
        raise UsageError(
            f"{source}: may be {found.model} or {twin}, whose keys are equal, and its BatchNorm statistics "
            "do not tell which; name one of the two"
        )
    name, chosen = (found.model, net) if fits > 0 else (twin, other)
    note = f"{source}: by its BatchNorm statistics it is {name}, not {twin if fits > 0 else found.model}"
    return Recognized(model=name, note=note), chosen


def _opened(
    net: Classifier, device: str | torch.device, found: Recognized, images: Tensor | None, source: str
) -> Foreign:
    """The net ready for use; statistics that no image agrees with are told."""
    notes = [found.note] if found.note else []
    away = distances(net, images) if images is not None and ":" not in found.model else []
    if away and (mean := sum(away) / len(away)) > STRANGE:
        notes.append(
            f"{source}: its BatchNorm statistics do not fit these images (distance {mean:.2g}, usual is up "
            f"to {STRANGE:g}): the pixels may want --mean and --std, or the net had other images"
        )
    return Foreign(net=ready(net, device), model=found.model, notes=tuple(notes))


def _outside(
    model: str,
    read: Mapping[str, Tensor],
    build: Callable[..., Classifier],
    mean: Values,
    std: Values,
    source: str,
) -> Classifier:
    """A net of somebody's own, whose keys are nobody's business; an export of ours holds the whole of it."""
    plain = plain_keys(read)
    net = build(model, mean=mean, std=std)
    if not _exported(plain):
        inner = net.backbone.net if isinstance(net.backbone, RepeatGrey) else net.backbone
        fill(inner, fitting_keys(inner, read), source)
        return net
    _refuse_normalization(mean, std, source)
    fill(net, plain, source)
    return net


def _refuse_normalization(mean: Values, std: Values, source: str) -> None:
    for name, value, neutral in (("mean", mean, 0.0), ("std", std, 1.0)):
        if any(number != neutral for number in ([value] if isinstance(value, int | float) else value)):
            what = f"has no effect with '{source}', which holds its own normalization"
            raise refusal(f"--{name}", value, what, "leave it out")


def _values(value: Tensor, channels: int, source: str) -> tuple[float, ...]:
    """The numbers of a normalization, one or one a channel."""
    numbers = tuple(value.flatten().tolist())
    if len(numbers) not in (1, channels):
        raise UserError(
            f"{source}: normalizes {len(numbers)} channels and the images have {channels}; "
            "name a data set of such images"
        )
    return numbers


def _exported(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are a whole ``Classifier``'s, as ``lasat_ray.export`` writes them."""
    normalization = {"mean", "std"}
    return normalization <= weights.keys() and all(
        name.startswith("backbone.") for name in weights.keys() - normalization
    )


def plain_keys(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights without the wrappers' prefixes and without keys that nothing reads."""
    return {key: value for key, value in without_wrappers(weights).items() if not key.startswith(UNUSED)}


def fitting_keys(net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as they are where their keys are the net's, else with as few wrappers' prefixes off as will
    do: a net of one's own may keep all its layers under ``model`` too."""
    wanted = {key for key in net.state_dict() if not key.endswith(COUNTER)}
    tried = dict(weights)
    while not wanted <= tried.keys():
        prefix = next((p for p in WRAPPERS if tried and all(key.startswith(p) for key in tried)), None)
        if prefix is None:
            return plain_keys(weights)
        tried = {key.removeprefix(prefix): value for key, value in tried.items()}
    return {key: value for key, value in tried.items() if not key.startswith(UNUSED)}
