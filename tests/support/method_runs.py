"""Runs of a few rounds, one for each method, that tests of several folders share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lasat_ray.config import TrainConfig
from lasat_ray.methods import METHODS
from lasat_ray.models import build_classifier
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.checkpoint import load_checkpoint, save_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from tests.support.helpers import CPU, small_config

TINY_RUN = {
    "precision": "fp64",
    "epochs": 2,
    "batch_size": 32,
    "data__max_train": 80,
    "data__max_test": 20,
    "data__val_fraction": 0.2,
    "model": "small_cnn_bn",
    "evaluation__test_num_steps": (1,),
    "evaluation__val_num_steps": 1,
    "reward__ref_num_steps": 1,
    "loss__cat_threshold": 0.05,
    "policy__lr": 0.01,
}
DISTINCT = [name for name in METHODS if name not in ("madry", "gowal")]
"""Without the second names of pgd-at and trades."""


def write_teacher(path: Path) -> str:
    """A checkpoint of an untrained net for the methods that learn from a frozen one, or prune one."""
    torch.manual_seed(3)
    net = build_classifier("small_cnn", num_classes=10, image_shape=(1, 8, 8))
    card = {"model": "small_cnn", "precision": "fp32", "num_classes": 10, "image_shape": [1, 8, 8]}
    save_checkpoint(path, {"target_net": net.state_dict(), "card": card})
    return str(path)


def run_config(name: str, teacher: str, **changes: Any) -> TrainConfig:
    method = METHODS[name]
    if method.companion == "frozen":
        changes["teacher"] = teacher
    if method.companions == 2:
        changes |= {"robust_teacher": teacher, "optim__swa_start": 1.0}
    if method.prunes:
        changes |= {"init_from": teacher, "model": "small_cnn"}
    if name == "rebuffi":
        changes |= {"data__cutmix": True, "optim__ema_decay": 0.9}
    if method.reuses:
        changes["attack__grid"] = {"eps": (0.1, 0.2, 0.3), "num_steps": (2.0,), "step_size": (0.05, 0.1)}
    if name == "te":
        changes["loss__te_epochs"] = (1.0, 2.0)
    if not method.attacks:
        changes["strategy"] = "fixed"
    return small_config(**{**TINY_RUN, "method": name, **changes})


def trainer_in(path: Path, config: TrainConfig, group: ProcessGroup | None = None) -> Trainer:
    folder = RunFolder(path) if path.exists() else RunFolder.create(path, config)
    return Trainer(config, RunContext(group=group or ProcessGroup(), device=CPU, folder=folder))


def assert_same_nets(one: Path, other: Path, told: str) -> None:
    """The last checkpoints of two run folders hold the same nets but for the order of sums."""
    mine, theirs = (load_checkpoint(path / "checkpoints" / "last.safetensors") for path in (one, other))
    assert mine["strength"] == theirs["strength"], told
    for part in ("target_net", "companion", "pruning", "memory"):
        for key, value in (mine[part] or {}).items():
            where = f"{told}: {part} {key}"
            if not isinstance(value, torch.Tensor):
                assert theirs[part][key] == value, where
                continue
            torch.testing.assert_close(theirs[part][key], value, rtol=0, atol=1e-9, msg=where)
