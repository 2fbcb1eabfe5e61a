"""The nets of a game: the target with its first weights, and the method's second net."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import flag
from lasat_ray.data import TrainingImages
from lasat_ray.data.classes import Classes
from lasat_ray.data.subsets import even_order
from lasat_ray.env.trial import check_for_training
from lasat_ray.errors import UsageError
from lasat_ray.methods import find_method
from lasat_ray.models import Classifier, FrozenNet, FrozenNets, architecture, build_classifier
from lasat_ray.models.backbone import ImageShape
from lasat_ray.models.patterns import freeze
from lasat_ray.rng import RandomKey
from lasat_ray.runs.load import load_checkpointed
from lasat_ray.runs.starting import Wanted, check_numbering, start_from

PROBED = 256
"""Training images by which nets with equal keys are told apart."""


def dtype_of(config: TrainConfig) -> torch.dtype:
    """The dtype of images and weights; bf16 concerns the forward passes alone."""
    return torch.float64 if config.precision == "fp64" else torch.float32


def build_target_net(
    config: TrainConfig,
    classes: Classes,
    image_shape: ImageShape,
    num_workers: int = 1,
    images: TrainingImages | None = None,
) -> tuple[nn.Module, list[str]]:
    """The target net with its first weights, those of --init-from, else decided by the seed alone; and what a
    person should be told about them.

    ``images`` to be trained on; None where a checkpoint will be loaded, which makes first weights needless.
    UserError where the weights of --init-from do not fit or number other ``classes``, or the net does not
    stand training on ``num_workers``."""
    loads = config.init_from is not None or images is None
    model = architecture(config.model) if loads else config.model
    net = _fresh(config, model, "--model", "target init", classes, image_shape)
    check_for_training(net, "--model", config.model, image_shape, config, num_workers)
    freeze(net, config.optim.freeze, option="--optim.freeze")
    if config.init_from is None or images is None:
        return net, []
    wanted = Wanted(
        model=config.model,
        classes=classes,
        image_shape=image_shape,
        new_head=config.new_head,
        mean=config.data.mean,
        std=config.data.std,
        images=lambda: _some(images, config.seed),
    )
    return net, start_from(net, config.init_from, wanted)


def _fresh(
    config: TrainConfig, model: str, option: str, role: str, classes: Classes, image_shape: ImageShape
) -> Classifier:
    """A net whose weights go by the seed and its role."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RandomKey.of(config.seed, role).low)
        return build_classifier(
            model,
            num_classes=len(classes),
            image_shape=image_shape,
            precision=config.precision,
            field=option,
            channels_last=config.speed.channels_last,
            mean=config.data.mean,
            std=config.data.std,
        )


def _some(images: TrainingImages, seed: int) -> Tensor:
    """Images to be trained on, [B,C,H,W] in [0,1]."""
    _, sample = images.sample(PROBED, seed)
    return sample.take(even_order(sample.y)[:PROBED]).x / 255


def build_companion(
    config: TrainConfig, classes: Classes, image_shape: ImageShape, trust: bool = False
) -> nn.Module | None:
    """The method's second net: fresh from the seed where it is trained, else read from --teacher; None where
    it follows the target."""
    kind = find_method(config.method).companion
    if kind in ("none", "average"):
        return None
    if kind == "frozen":
        teacher = frozen_teacher(config, classes, image_shape, trust)
        if find_method(config.method).companions == 1:
            return teacher
        return FrozenNets([teacher, frozen_teacher(config, classes, image_shape, trust, "robust_teacher")])
    model = config.teacher_model or config.model
    return _fresh(config, model, "--teacher-model", "companion init", classes, image_shape)


def frozen_teacher(
    config: TrainConfig,
    classes: Classes,
    image_shape: ImageShape,
    trust: bool = False,
    field: str = "teacher",
) -> nn.Module:
    """The net of --teacher (or another ``field``), frozen for good; UsageError where none is named, it is of
    other images, or it is code that is neither the target's nor trusted; UserError where its file is missing
    or damaged, or it numbers other ``classes``."""
    path, option = getattr(config, field), flag(field)
    if path is None:
        raise UsageError(f"{option}: --method {config.method} learns from a net; name its run folder")
    net, card = load_checkpointed(path, trust=trust, known=(config.model,))
    theirs, ours = (card["num_classes"], tuple(card["image_shape"])), (len(classes), tuple(image_shape))
    if theirs != ours:
        told = f"'{path}' tells {theirs[0]} classes of {theirs[1]} images apart, not {ours[0]} of"
        raise UsageError(f"{option}: {told} {ours[1]}; name a net of this data set")
    check_numbering(option, path, card, classes)
    return FrozenNet(net.to(dtype_of(config)))
