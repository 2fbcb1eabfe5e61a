"""How long a run will take on this machine, before it starts."""

from __future__ import annotations

import dataclasses
import time

import torch

from lasat_ray.config import TrainConfig
from lasat_ray.cost import expected_passes, validation_passes
from lasat_ray.data import ImageDataset, split_validation
from lasat_ray.env.build import build_round
from lasat_ray.process_group import ProcessGroup
from lasat_ray.training.round import play_round


def expected_seconds(config: TrainConfig, dataset: ImageDataset, device: torch.device) -> float:
    """Seconds of training, validations and the final test: the passes that the settings let one expect, at
    the speed of two rounds of the fixed attack on nets that are thrown away."""
    fixed = dataclasses.replace(config, strategy="fixed")
    train, val = split_validation(dataset.train, config.data.val_fraction, config.seed)
    env, learner = build_round(
        fixed, train, dataset.num_classes, group=ProcessGroup(), device=device, classes=dataset.classes
    )
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        float(play_round(env, learner).sums["loss"])  # a GPU has to have finished
        seconds.append(time.perf_counter() - began)
    a_pass = min(seconds[1:]) / expected_passes(fixed, 1, 1)
    test = dataset.inspect_test() if dataset.inspect_test else None
    looked_at = validation_passes(config, len(val), test.coverage["used"] if test else 0)
    return a_pass * (expected_passes(config, env.target.rounds_per_epoch) + looked_at)


def spell_seconds(seconds: float) -> str:
    """``90 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
