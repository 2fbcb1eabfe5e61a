"""How long a run will take on this machine, before it starts."""

from __future__ import annotations

import dataclasses
import time

import torch

from lasat_ray.config import TrainConfig
from lasat_ray.data import ImageDataset, split_validation
from lasat_ray.env.build import build_round
from lasat_ray.process_group import ProcessGroup
from lasat_ray.training.round import play_round
from lasat_ray.update.cost import expected_passes, validation_passes


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """A data set and a machine, as a few rounds showed them; ``seconds_per_pass``: of one image."""

    rounds_per_epoch: int
    n_train: int
    n_val: int
    seconds_per_pass: float


def measure(
    config: TrainConfig, dataset: ImageDataset, device: torch.device, trust: bool = False
) -> Throughput:
    """Play three rounds of the fixed attack on nets that are thrown away; the faster of the last two
    counts. ``trust``: teachers may be code that the user named nowhere."""
    fixed = dataclasses.replace(config, strategy="fixed")
    train, val = split_validation(dataset.train, config.data.val_fraction, config.seed)
    env, learner = build_round(
        fixed,
        train,
        dataset.num_classes,
        group=ProcessGroup(),
        device=device,
        classes=dataset.classes,
        begins=False,
        trust=trust,
    )
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        float(play_round(env, learner).sums["loss"])  # a GPU has to have finished
        seconds.append(time.perf_counter() - began)
    return Throughput(
        rounds_per_epoch=env.target.rounds_per_epoch,
        n_train=len(train),
        n_val=len(val),
        seconds_per_pass=min(seconds[1:]) / expected_passes(fixed, 1, 1),
    )


def expected_seconds(
    config: TrainConfig, dataset: ImageDataset, device: torch.device, trust: bool = False
) -> float:
    """Seconds of training, validations and the final test: the passes that the settings let one expect, at
    the speed that ``measure`` finds."""
    seen = measure(config, dataset, device, trust)
    test = dataset.inspect_test() if dataset.inspect_test else None
    looked_at = validation_passes(config, seen.n_val, test.coverage["used"] if test else 0)
    return seen.seconds_per_pass * (expected_passes(config, seen.rounds_per_epoch) + looked_at)


def spell_seconds(seconds: float) -> str:
    """``90 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
