"""The record, the clock and the training games that all measurements on one GPU share."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import RECORDS, make_round, random_images
from lasat_ray.config import AttackConfig, LossConfig, OptimConfig, PolicyConfig, SpeedConfig, TrainConfig
from lasat_ray.data import TrainingImages, load_dataset
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.learners import Learner
from lasat_ray.recipes.paper import LAS_AT_GRID
from lasat_ray.runs.checkpoint import write_atomically
from lasat_ray.runs.folder import provenance
from lasat_ray.training.machine import choose_arithmetic

ROOM = 20.0  # seconds kept back for writing and leaving


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure, and for how long."""

    device: str = "cuda"
    """cuda or cpu."""
    dataset: str | None = None
    """As for lasat_ray.train, for example parquet:PATH; None makes 50,000 random images."""
    budget_seconds: float = 450.0
    """No measurement is begun after this."""
    batch_size: int = 128
    """Images a round, the published runs' size."""
    seconds: float = 4.0
    """Measured time of one setting, after its warm-up."""
    tiny: bool = False
    """Small nets, two rounds each: does the program work?"""
    out: Path | None = None
    """The record's file; None means benchmarks/records/RECORD.json."""
    record: str = "gpu"
    """Name of the file in benchmarks/records."""


class Bench:
    """The record, the clock, and what all measurements share."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.began = time.perf_counter()
        self.file = options.out or RECORDS / f"{options.record}.json"
        told = {**asdict(options), "out": None, "dataset": options.dataset and "given"}
        self.record: dict[str, Any] = {**provenance(), "settings": told, "sections": {}}
        choose_arithmetic(SpeedConfig().tf32, self.device)
        if self.on_gpu:
            properties = torch.cuda.get_device_properties(self.device)
            self.record["device"] = {"name": properties.name, "memory_gib": properties.total_memory / 2**30}
        self.images, self.classes = self._images()

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds in which something new may begin."""
        return self.options.budget_seconds - ROOM - (time.perf_counter() - self.began)

    def _images(self) -> tuple[TrainingImages, int]:
        if self.options.dataset:
            dataset = load_dataset(self.options.dataset, root="~", max_train=None, max_test=None, seed=0)
            return dataset.train, dataset.num_classes
        return random_images(256 if self.options.tiny else 50_000), 10

    def section(self, name: str, work: Callable[[], Any], needs: float = 15.0) -> None:
        """Run ``work`` if there is time; its result, or why there is none, goes to the record at once."""
        if self.left < needs:
            found: Any = {"skipped": f"{self.left:.0f} s left"}
        else:
            began = time.perf_counter()
            try:
                found = work()
            except Exception as error:  # one setting that fails must not take the others along
                found = {"error": f"{type(error).__name__}: {error}"[:600]}
                traceback.print_exc()
            found["section_seconds"] = round(time.perf_counter() - began, 2)
        self.record["sections"][name] = found
        self.record["total_seconds"] = round(time.perf_counter() - self.began, 1)
        # Whole or not at all: what cuts the program may come while the file is being written.
        write_atomically(self.file, (json.dumps(self.record, indent=1) + "\n").encode())
        print(f"{name}: {json.dumps(found)[:300]}", flush=True)
        if self.on_gpu:
            torch.cuda.empty_cache()

    def end(self, name: str) -> None:
        """Leave with a status that tells of sections that failed."""
        if failed := [section for section, found in self.record["sections"].items() if "error" in found]:
            sys.exit(f"{name}: failed: {', '.join(failed)}")

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def model_names(options: Options) -> tuple[str, str]:
    return ("small_cnn_bn", "wrn-10-1") if options.tiny else ("resnet18", "wrn-34-10")


def round_config(
    options: Options, model: str, method: str, speed: SpeedConfig, precision: str
) -> TrainConfig:
    """PGD-AT and LAS-AT as Table 1 runs them; the strategy net is a ResNet-18."""
    learned = method == "las-at"
    return TrainConfig(
        dataset="synthetic",
        model=model,
        strategy_model="small_cnn" if options.tiny else "resnet18",
        strategy="learned" if learned else "fixed",
        update_interval=2 if options.tiny else 40,
        batch_size=4 if options.tiny else options.batch_size,
        precision=precision,  # type: ignore[arg-type]
        attack=AttackConfig(grid=LAS_AT_GRID if learned else {}),
        loss=LossConfig(label_smoothing=0.3 if learned else 0.0),
        policy=PolicyConfig(lr=1e-4, baseline="none"),
        optim=OptimConfig(lr=0.01, schedule="constant"),
        speed=speed,
    )


def make_game(bench: Bench, config: TrainConfig) -> tuple[AttackStrategyVectorEnv, Learner]:
    """The trainer's env and learner, without folder, validation or checkpoints."""
    return make_round(config, bench.images, bench.classes, device=bench.device)
