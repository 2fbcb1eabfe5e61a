"""Target nets and strategy backbones by name.

A new net is one file with a ``Backbone`` and one line in ``MODELS``; a net that needs no place
here is named as ``module:function``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial

from torch import nn

from lasat_ray.errors import UsageError, unknown_name
from lasat_ray.models.attack_net import AttackNet, AttackView
from lasat_ray.models.backbone import Backbone, BackboneBuilder, Builder, ImageShape
from lasat_ray.models.classifier import PRECISIONS, Classifier, channel_values, full_precision
from lasat_ray.models.compiled import begin_step, compiled
from lasat_ray.models.given import PREFIX, given_builder
from lasat_ray.models.gowal import GowalPreActResNet, GowalWideResNet
from lasat_ray.models.libraries import LIBRARIES, LibraryBuilder, architecture, library_builder
from lasat_ray.models.modes import (
    FollowingNet,
    FrozenNet,
    FrozenNets,
    batch_norm_buffers,
    batch_norm_state,
    dtype_of,
    eval_mode,
    frozen_eval,
    norm_and_bias_parameters,
    num_parameters,
    parameter_groups,
)
from lasat_ray.models.outside import check_output, check_trainable, outside_builder
from lasat_ray.models.resnet import Bottleneck, PreActBlock, RawPreActBlock, ResNet
from lasat_ray.models.small import MLP, SmallCNN
from lasat_ray.models.wide_resnet import WideResNet, check_depth
from lasat_ray.plugins import Plugin

# oneDNN makes a new kernel for every batch size of every layer, and keeps 1,024; images that leave an
# attack make many sizes, and without room for them rounds of small nets take a sixth longer. Read
# at the first convolution of the process; who set it keeps what they set.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")

__all__ = [
    "MODELS",
    "PATTERNS",
    "PRECISIONS",
    "AttackNet",
    "AttackView",
    "Backbone",
    "Classifier",
    "FollowingNet",
    "FrozenNet",
    "FrozenNets",
    "architecture",
    "batch_norm_buffers",
    "batch_norm_state",
    "begin_step",
    "build_classifier",
    "build_features",
    "check_trainable",
    "compiled",
    "dtype_of",
    "eval_mode",
    "find_builder",
    "frozen_eval",
    "full_precision",
    "norm_and_bias_parameters",
    "num_parameters",
    "parameter_groups",
]

PREACT = partial(ResNet, num_blocks=(2, 2, 2, 2))
RESNETS: dict[str, partial[ResNet] | partial[GowalPreActResNet]] = {
    "resnet18": partial(ResNet, num_blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, num_blocks=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, block=Bottleneck, num_blocks=(3, 4, 6, 3)),
    "preact_resnet18": partial(PREACT, block=PreActBlock),
    "preact_resnet18_active": partial(PREACT, block=PreActBlock),
    "preact_resnet18_raw": partial(PREACT, block=RawPreActBlock),
    "preact_resnet18_bn": partial(PREACT, block=PreActBlock, final_norm=True),
    "dm_preact_resnet18": partial(GowalPreActResNet, num_blocks=(2, 2, 2, 2)),
}
MODELS: dict[str, BackboneBuilder] = {
    "small_cnn": SmallCNN,
    "mlp": MLP,
    "small_cnn_bn": partial(SmallCNN, norm=True),
    "tiny_cnn": partial(SmallCNN, widths=(16, 32, 32), hidden=64),
    "tiny_cnn_bn": partial(SmallCNN, widths=(16, 32, 32), hidden=64, norm=True),
    **RESNETS,
}
"""Name -> builder, called with ``num_classes`` and ``image_shape`` (C,H,W)."""
PATTERNS = (
    "wrn-DEPTH-WIDTH",
    "wrn-DEPTH-WIDTH-silu",
    "dm_wrn-DEPTH-WIDTH",
    "dm_wrn-DEPTH-WIDTH-silu",
    *(f"{name}-WIDTH" for name in RESNETS),
    "torchvision:NAME",
    "torchvision:NAME@WEIGHTS",
    "timm:NAME",
    "timm:NAME@TAG",
    "module:function",
)
"""Names that are made of parts; WIDTH is a factor for wrn, the first stage's channels otherwise."""

MAX_WIDTH = 4096

OUTSIDE_FEATURES = 128
"""F of a net from elsewhere, whose own penultimate layer is unknown: it is built with F outputs."""


def find_builder(name: str, *, field: str) -> Builder | BackboneBuilder:
    """Tell the names apart; UsageError in ``field``'s name if nothing answers to ``name``."""
    if name in MODELS:
        return MODELS[name]
    if found := re.fullmatch(r"(dm_)?wrn-(\d+)-([1-9]\d*)(-silu)?", name):
        depth, widen = int(found[2]), int(found[3])
        check_depth(depth, name=name, field=field)
        check_width(widen, name=name, field=field)
        family = GowalWideResNet if found[1] else WideResNet
        return partial(family, depth=depth, widen=widen, activation=nn.SiLU if found[4] else nn.ReLU)
    found = re.fullmatch(r"(\w+)-([1-9]\d*)", name)
    if found and found[1] in RESNETS:
        check_width(int(found[2]), name=name, field=field)
        return partial(RESNETS[found[1]], width=int(found[2]))
    prefix, _, rest = name.partition(":")
    if prefix == PREFIX:
        return given_builder(name, field=field)
    if prefix in LIBRARIES and rest:
        return library_builder(name, field=field)
    if prefix and rest:
        return outside_builder(name, field=field)
    raise unknown_name(field, name, [*MODELS, *PATTERNS])


def check_width(width: int, *, name: str, field: str) -> None:
    """UsageError for a width that no memory holds."""
    if width > MAX_WIDTH:
        raise UsageError(f"{field}: '{name}' has width {width}; choose {MAX_WIDTH} or less")


def build_classifier(
    name: str,
    *,
    num_classes: int,
    image_shape: ImageShape,
    precision: str = "fp32",
    field: str = "model",
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    channels_last: bool = False,
) -> Classifier:
    """An untrained net, images [B,C,H,W] in [0,1] -> logits [B,num_classes].

    ``image_shape`` (C, H, W); ``mean``, ``std`` in [0,1] pixels, one number or one per channel.
    Weights depend only on torch's global random state, which the caller seeds. In ``field``'s name:
    UsageError for a name, precision, number or size that cannot be, UserError where a net from
    elsewhere does not work.
    """
    if num_classes < 2:
        raise UsageError(f"num_classes: {num_classes} leaves nothing to tell apart; give at least 2")
    return _build(name, num_classes, image_shape, precision, field, mean, std, channels_last)


def build_features(
    name: str,
    *,
    image_shape: ImageShape,
    precision: str = "fp32",
    field: str = "strategy_model",
    channels_last: bool = False,
) -> tuple[Classifier, int]:
    """An untrained net without its head, x [B,C,H,W] in [0,1] -> [B,F], and F; names and
    errors as for ``build_classifier``.

    A net from elsewhere has no known penultimate layer: it is built with 128 outputs, which serve
    as the features.
    """
    net = _build(name, None, image_shape, precision, field, 0.0, 1.0, channels_last)
    if ":" in name:
        return net, OUTSIDE_FEATURES
    assert isinstance(net.backbone, Backbone)
    return net, net.backbone.num_features


def _build(
    name: str,
    num_classes: int | None,
    image_shape: ImageShape,
    precision: str,
    field: str,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    channels_last: bool,
) -> Classifier:
    """``num_classes`` None: end at the features."""
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise UsageError(
            f"image_shape: {tuple(image_shape)} is not (channels, height, width), each at least 1"
        )
    channels = image_shape[0]
    builder = find_builder(name, field=field)
    if isinstance(builder, LibraryBuilder) and _is_all(mean, 0.0) and _is_all(std, 1.0):
        mean, std = builder.pixels(channels)
    pixel = {"mean": channel_values("mean", mean, channels), "std": channel_values("std", std, channels)}
    outside = ":" in name
    outputs = OUTSIDE_FEATURES if outside and num_classes is None else num_classes
    backbone = builder(num_classes=outputs, image_shape=image_shape)  # type: ignore[arg-type]
    net = Classifier(backbone, precision=precision, channels_last=channels_last, **pixel)
    if outside:
        assert outputs is not None
        plugin = Plugin(field, name)
        check_output(net, outputs, image_shape, plugin)
        net.hold_to(plugin, outputs)
    return net


def _is_all(value: float | Sequence[float], number: float) -> bool:
    """Whether a normalization is one number for all channels, such as the neutral one."""
    return all(v == number for v in (value if isinstance(value, Sequence) else (value,)))
