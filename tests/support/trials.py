"""Sweeps of a second, and trials that misbehave, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from lasat_ray.config import TrainConfig
from lasat_ray.tune.options import Asked, SweepRun
from lasat_ray.tune.run import run_sweep
from lasat_ray.tune.storage import Store
from lasat_ray.tune.sweep_k import SweepK
from lasat_ray.tune.trial import Outcome, Trial, Trials
from tests.support.ray_runs import tiny

TINY = [  # the settings of tests.support.ray_runs.tiny, as options
    *("--epochs", "2", "--batch-size", "48", "--precision", "fp64", "--data.max-train", "160"),
    *("--data.max-test", "40", "--attack.grid", "eps=0.1,0.2 num_steps=1,2,3", "--reward.ref-num-steps", "2"),
    *("--evaluation.val-num-steps", "2", "--evaluation.test-num-steps", "2"),
]


def asked_of(out: Path | str, config: TrainConfig | None = None, **run: Any) -> Asked:
    """A sweep as if it had been asked for on the command line."""
    given = SweepRun(**run)
    config = tiny() if config is None else config
    return Asked(config=config, settings=SweepK(), run=given, store=Store(str(out)), command="sweep_k")


def run_trials(out: Path | str, trials: list[Trial] | Trials, **run: Any) -> dict[str, Outcome]:
    """Every outcome of a sweep of these trials, on the Ray that is connected."""
    sweep: Trials = trials if callable(trials) else lambda outcomes: trials
    outcomes = run_sweep(asked_of(out, **run), sweep, Console(quiet=True))
    assert outcomes is not None
    return outcomes


def finished(clean: float = 0.9, robust: float = 0.5, **more: Any) -> Outcome:
    """An outcome with the figures that tables need."""
    given: dict[str, Any] = {
        "summary": {"clean_acc": clean, "robust_acc_pgd10": robust, "n_train": 100, "n_test": 50, "eps": 0.2},
        "curve": ((1, clean, robust / 2), (2, clean, robust)),
        "train_seconds": 10.0,
        "target_passes": 1000.0,
        "chosen": {"eps": (0.15, 0.2), "num_steps": (8.0, 9.0), "step_size": (0.05, 0.05)},
    }
    return Outcome(status="finished", **{**given, **more})
