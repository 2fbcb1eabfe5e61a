"""The strategist of a finished or stopped run: its learner, as the last checkpoint left it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.env.observation import observation_shape
from lasat_ray.errors import UsageError, UserError
from lasat_ray.learners import Learner, LearnerContext, seeded_learner
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.checkpoint import load_checkpoint, restoring
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.load import checkpoint_file
from lasat_ray.runs.trust import names_code
from lasat_ray.strategy import StrategySpace


@dataclass(frozen=True, slots=True)
class TrainedPolicy:
    """Who chooses, and from what; ``space`` in the precision of training, on the CPU."""

    learner: Learner
    space: StrategySpace


def load_policy(
    folder: RunFolder, config: TrainConfig, image_shape: tuple[int, int, int], *, trust: bool = False
) -> TrainedPolicy:
    """UserError where there is no last checkpoint, or the learner's own code is not trusted."""
    named = [config.learner, config.strategy_model] if config.learns else []
    if not trust and (code := [name for name in named if names_code(name)]):
        raise UsageError(f"--trust: the run's strategy is code, '{code[0]}'; pass --trust if you trust it")
    state = load_checkpoint(checkpoint_file(folder.path, "last"))
    if "learner" not in state:
        raise UserError(f"{folder.path}: its last checkpoint holds no strategy; the run has to train first")
    dtype = torch.float64 if config.precision == "fp64" else torch.float32
    space = StrategySpace.of(grid_of(config), device="cpu", dtype=dtype)
    context = LearnerContext(
        space=space,
        image_shape=observation_shape(config, image_shape, state["card"]["num_classes"]),
        config=config,
        group=ProcessGroup(),
        device=torch.device("cpu"),
    )
    learner = seeded_learner(context)
    with restoring(folder.path):
        learner.load_state_dict(state["learner"])
    return TrainedPolicy(learner, space)
