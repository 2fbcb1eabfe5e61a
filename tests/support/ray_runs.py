"""Runs of a few rounds, small enough for a test, on real digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lasat_ray.config import TrainConfig
from lasat_ray.recipes import get_recipe
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.folder import RunFolder


def tiny(**changes: Any) -> TrainConfig:
    """Two epochs of three rounds; learned strategies, float64."""
    base = get_recipe("digits").config
    return dataclasses.replace(
        base,
        epochs=2,
        batch_size=48,
        precision="fp64",
        data=dataclasses.replace(base.data, max_train=160, max_test=40),
        attack=dataclasses.replace(base.attack, grid={"eps": (0.1, 0.2), "num_steps": (1.0, 2.0, 3.0)}),
        reward=dataclasses.replace(base.reward, ref_num_steps=2),
        evaluation=dataclasses.replace(base.evaluation, val_num_steps=2, test_num_steps=(2,)),
        **changes,
    )


def new_folder(path: Path, config: TrainConfig) -> RunFolder:
    return RunFolder.create(path, config)


def weights(folder: RunFolder) -> dict[str, Any]:
    """Target and strategy nets of the last checkpoint."""
    state = load_checkpoint(folder.checkpoints / "last.safetensors")
    return {"target": state["target_net"], "strategy": state["learner"]["net"]}
