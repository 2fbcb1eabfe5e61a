"""What a run knows of its images before the first round, tells of them, and compares when it is resumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lasat_ray.config import TrainConfig
from lasat_ray.data import (
    ImageDataset,
    Images,
    TrainingImages,
    load_dataset,
    split_outcome,
    split_validation,
)
from lasat_ray.data.fingerprint import difference, fingerprint
from lasat_ray.data.images import TestFacts
from lasat_ray.data.subsets import cap_told, missing_classes
from lasat_ray.env.build import holds_out, read_options
from lasat_ray.errors import UserError
from lasat_ray.training.context import RunContext


@dataclass(frozen=True, slots=True)
class RunImages:
    """The training images of a run, parted: those that updates see, those that choose the best epoch, those
    that the reward is measured on (None: the round's own). ``count``: ``train`` and ``outcome`` together."""

    train: TrainingImages
    val: Images
    outcome: Images | None
    count: int


def split_images(config: TrainConfig, dataset: ImageDataset) -> RunImages:
    """Part the training images as the settings say; by the seed, the same on every worker."""
    train, val = split_validation(dataset.train, config.data.val_fraction, config.seed)
    count, outcome, reward = len(train), None, config.reward
    if holds_out(config):
        train, outcome = split_outcome(train, reward.outcome_fraction, reward.outcome_images, config.seed)
    return RunImages(train, val, outcome, count)


class Inputs:
    """The data set of a run as it was found: ``test`` of the test part (None on all workers but the first,
    and for a set made by hand), ``fingerprint``, and the ``notes`` to tell once."""

    def __init__(self, config: TrainConfig, dataset: ImageDataset, context: RunContext) -> None:
        """Collective. UserError, on every worker, for what the test part would end the run with later."""
        self.test: TestFacts | None = None
        error = None
        if context.group.is_first and dataset.inspect_test:
            try:
                self.test = dataset.inspect_test()
            except UserError as caught:
                error = caught
        context.group.raise_together(error, context.device)
        identity = self.test.identity if self.test else None
        self.fingerprint = fingerprint(dataset, identity, config.data.extra)
        self.notes = [*dataset.notes, *_left_out(dataset, self.test)]

    def compare(self, state: dict[str, Any] | None, context: RunContext) -> str | None:
        """What changed since a checkpoint, where that was accepted. Collective; UserError where not."""
        old = (state or {}).get("data")
        told = difference(old, self.fingerprint) if isinstance(old, dict) else None
        error = None
        if told and (not context.accept_changed_data or "class names" in told):
            remedy = "restore the data set" + (
                "" if "class names" in told else ", or go on with --accept-changed-data"
            )
            error = UserError(
                f"--resume: {told} since the run in {context.folder.path} was stopped; {remedy}"
            )
        context.group.raise_together(error, context.device)
        return told

    def write_manifest(self, context: RunContext, changed: str | None) -> None:
        """The fingerprint in manifest.json, and what was accepted to have changed. By the first worker."""
        if not (context.folder.path / "manifest.json").is_file():
            return
        manifest = context.folder.read_json("manifest.json")
        if manifest.get("data") != self.fingerprint:
            manifest["data"] = self.fingerprint
            if changed:
                manifest["data_changes"] = [*manifest.get("data_changes", []), changed]
            context.folder.write_json("manifest.json", manifest)


def _left_out(dataset: ImageDataset, test: TestFacts | None) -> list[str]:
    """Caps that bite, and classes without images."""
    told: list[str | None] = []
    if dataset.available is not None:
        counts = len(dataset.train), dataset.available
        told.append(cap_told(*counts, f"training images of {dataset.name} are used", "--data.max-train"))
        if test:
            counts = test.coverage["used"], test.coverage["of"]
            told.append(cap_told(*counts, f"test images of {dataset.name} are used", "--data.max-test"))
    if isinstance(dataset.train, Images):
        counts_C = torch.bincount(dataset.train.y, minlength=dataset.num_classes)
        absent = [dataset.class_names[n] for n in (counts_C == 0).nonzero()[:, 0].tolist()]
        told.append(missing_classes(absent, "the training images"))
    return [line for line in told if line] + list(test.notes if test else ())


def load_config_dataset(config: TrainConfig) -> ImageDataset:
    """The data set that a configuration names; the test part stays closed."""
    data = config.data
    dataset = load_dataset(
        config.dataset,
        root=data.root,
        max_train=data.max_train,
        max_test=data.max_test,
        seed=config.seed,
        options=read_options(data),
    )
    if dataset.num_classes < 2:
        raise UserError(f"{config.dataset}: has images of one class alone; add images of another")
    return dataset
