"""Learners by name. A new one is a class with ``act``, ``update`` and its state, and a line here;
code outside the project is named ``module:Class``."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lasat_ray.errors import UsageError, unknown_name
from lasat_ray.learners.base import Learner, LearnerContext
from lasat_ray.learners.controls import Curriculum, Fixed, Random
from lasat_ray.learners.reinforce import Reinforce
from lasat_ray.plugins import load_plugin
from lasat_ray.rng import Stream

LEARNERS: dict[str, Callable[[LearnerContext], Learner]] = {
    "reinforce": Reinforce,
    "random": Random,
    "fixed": Fixed,
    "curriculum": Curriculum,
}


def make_learner(context: LearnerContext) -> Learner:
    """The learner that the configuration asks for: a control, one of ours, or outside code."""
    config = context.config
    name = config.learner if config.strategy == "learned" else config.strategy
    if ":" in name:
        build = load_plugin("learner", name)
        if not callable(build):
            raise UsageError(f"--learner: '{name}' is no class; see lasat_ray/learners/base.py")
        learner = build(context)
        missing = [m for m in ("act", "update", "state_dict", "load_state_dict") if not hasattr(learner, m)]
        if missing:
            raise UsageError(
                f"--learner: '{name}' lacks {', '.join(missing)}; see lasat_ray/learners/base.py"
            )
        return learner
    if name not in LEARNERS:
        raise unknown_name("--learner", name, LEARNERS)
    return LEARNERS[name](context)


def seeded_learner(context: LearnerContext) -> Learner:
    """The learner with its first weights, which the seed alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Stream.of(context.config.seed, "strategy init").low)
        return make_learner(context)


__all__ = ["LEARNERS", "Learner", "LearnerContext", "make_learner", "seeded_learner"]
