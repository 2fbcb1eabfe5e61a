"""What is evaluated: a net, its test images, and the settings it was trained to withstand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lasat_ray.config import DataConfig, TrainConfig
from lasat_ray.config.data import TESTS_ALONE
from lasat_ray.config.json_io import read_config
from lasat_ray.data import ImageDataset, Images, ReadOptions, load_dataset, load_test_alone, load_test_images
from lasat_ray.data.classes import Classes, classes_of_names
from lasat_ray.data.images import TestFacts
from lasat_ray.data.subsets import even_order
from lasat_ray.errors import UsageError, UserError
from lasat_ray.models.backbone import ImageShape
from lasat_ray.runs.foreign import open_foreign
from lasat_ray.runs.load import checkpoint_file, load_checkpointed
from lasat_ray.runs.trust import check_address, check_folder

PROBED = 256
"""Test images on which the nets of foreign weights are told apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTarget:
    """A net ready to be attacked. ``config``: the run behind it, None for nets from elsewhere;
    ``facts`` go into the report; ``out``: where the report lies by default."""

    net: nn.Module
    images: Images
    image_shape: ImageShape
    config: TrainConfig | None
    facts: dict[str, Any]
    out: Path


def from_run(
    path: Path, *, which: str, dataset: str | None, root: str | None, max_test: int | None, trust: bool
) -> EvaluationTarget:
    """A run folder or one checkpoint file; its test set is the run's unless ``dataset`` names one.

    UserError where the file, the data set, or the two together do not work.
    """
    check_folder(path, trust)
    file = checkpoint_file(path, which)
    folder = path if path.is_dir() else file.parent.parent
    config = (
        read_config(folder / "config.json", complete=True) if (folder / "config.json").is_file() else None
    )
    if config and dataset is None:
        check_address("--dataset", config.dataset, folder / "config.json", trust)
    net, card = load_checkpointed(file, which=which, trust=trust)
    spelling = dataset or (config.dataset if config else None)
    if spelling is None:
        raise UsageError(f"--dataset: '{path}' lies in no run folder; name the test set")
    shape: ImageShape = tuple(card["image_shape"])
    images, known = load_test_images(
        spelling,
        classes_of_names(card.get("class_names", ()), card["num_classes"]),
        shape,
        root=_root(root, config),
        max_test=max_test,
        options=_options(config),
    )
    if images.image_shape != shape:
        raise UserError(
            f"--dataset: {dataset_label(spelling)} has images {images.image_shape} (C,H,W) and the net "
            f"takes {shape}; name the data set it was trained on"
        )
    facts = {
        "model": card["model"],
        "architecture": architecture_name(card["model"]),
        "method": f"{config.method} ({config.strategy})" if config else None,
        "recipe": config.recipe if config else None,
        "extra_data": bool(config and config.data.extra),
        "dataset": dataset_label(spelling),
        "checkpoint": file.name,
        "class_names": list(card.get("class_names", ())),
        "images": known.coverage,
        "notes": list(known.notes),
        "own": _own(config) if config else None,
    }
    out = folder if config else file.parent / f"{file.stem}-evaluation"
    return EvaluationTarget(net=net, images=images, image_shape=shape, config=config, facts=facts, out=out)


def from_weights(
    model: str,
    weights: Path,
    *,
    dataset: str | None,
    root: str | None,
    max_test: int | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> EvaluationTarget:
    """A net by name with somebody's weights, on a named test set."""
    if dataset is None:
        raise UsageError(f"--dataset: is missing; name the test set for '{model}', for example cifar10")
    classes, images, known = _test_part(dataset, root, max_test)
    found = open_foreign(
        model,
        weights,
        num_classes=len(classes),
        image_shape=images.image_shape,
        mean=mean,
        std=std,
        images=images.take(even_order(images.y)[:PROBED]).x / 255,
    )
    facts: dict[str, Any] = {
        "model": found.model,
        "architecture": architecture_name(found.model),
        "method": weights.stem,
        "extra_data": None,
        "dataset": dataset_label(dataset),
        "checkpoint": weights.name,
        "class_names": list(classes.names),
        "notes": list(found.notes),
    }
    if known is not None:
        facts |= {"images": known.coverage, "notes": [*found.notes, *known.notes]}
    out = weights.parent / f"{weights.stem}-evaluation"
    shape = images.image_shape
    return EvaluationTarget(
        net=found.net, images=images, image_shape=shape, config=None, facts=facts, out=out
    )


def _test_part(
    spelling: str, root: str | None, max_test: int | None
) -> tuple[Classes, Images, TestFacts | None]:
    """The test images of a set, its classes being those of its training images where it has any."""
    try:
        data = _dataset(spelling, root, None, max_test)
    except UserError as error:
        try:
            images, known, classes = load_test_alone(
                spelling, root=_root(root, None), max_test=max_test, options=_options(None)
            )
        except UserError as alone:
            raise (alone if spelling in TESTS_ALONE else error) from None
        return classes, images, known
    return data.classes, data.load_test(), data.inspect_test() if data.inspect_test else None


def _own(config: TrainConfig) -> dict[str, Any]:
    """The images and the budget that a run itself names: evaluations of others do not stand for it."""
    settings = config.evaluation
    return {"dataset": dataset_label(config.dataset), "norm": settings.norm, "eps": settings.eps}


def _dataset(
    spelling: str, root: str | None, config: TrainConfig | None, max_test: int | None
) -> ImageDataset:
    """The data set with its test part; of the training images one is decoded, for shape and classes."""
    return load_dataset(
        spelling,
        root=_root(root, config),
        max_train=1,
        max_test=max_test,
        seed=0,
        options=_options(config),
    )


def _root(root: str | None, config: TrainConfig | None) -> str:
    return root or (config.data.root if config else DataConfig().root)


def _options(config: TrainConfig | None) -> ReadOptions:
    """Files are read as the run read them."""
    data = config.data if config else DataConfig()
    return ReadOptions(
        image_column=data.image_column,
        label_column=data.label_column,
        background=data.background,
        image_size=data.image_size,
        fit=data.fit,
    )


def dataset_label(spelling: str) -> str:
    """``parquet:/data/cifar10`` -> ``cifar10``: a report names the data, not somebody's disk."""
    _, _, place = spelling.partition(":")
    return Path(place).name.partition(".")[0] if place else spelling


def architecture_name(model: str) -> str:
    """As leaderboards write it: ``wrn-34-10`` -> ``WideResNet-34-10``."""
    model = model.removeprefix("dm_")
    known = {"resnet": "ResNet-", "preact_resnet": "PreActResNet-", "wrn-": "WideResNet-"}
    for prefix, name in known.items():
        if model.startswith(prefix):
            return name + model.removeprefix(prefix)
    return model
