"""Learners by name. A new one is a class with ``act``, ``update`` and its state, and a line here;
code outside the project is named ``module:Class``, Stable-Baselines3's are ``sb3:PPO``, ``sb3:A2C``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch

from lasat_ray.errors import UsageError, UserError, install, unknown_name
from lasat_ray.learners.a2c import A2C
from lasat_ray.learners.base import Learner, LearnerContext, RemembersActing
from lasat_ray.learners.controls import Curriculum, Fixed, Margin, Random
from lasat_ray.learners.exp3 import Exp3
from lasat_ray.learners.mirror_descent import MirrorDescent
from lasat_ray.learners.outside import OutsideLearner
from lasat_ray.learners.ppo import PPO
from lasat_ray.learners.reinforce import Reinforce
from lasat_ray.learners.thompson import Thompson
from lasat_ray.learners.ucb import UCB
from lasat_ray.plugins import Plugin, blaming, load_plugin
from lasat_ray.rng import RandomKey

LEARNERS: dict[str, Callable[[LearnerContext], Learner]] = {
    "reinforce": Reinforce,
    "a2c": A2C,
    "ppo": PPO,
    "mirror-descent": MirrorDescent,
    "ucb": UCB,
    "thompson": Thompson,
    "exp3": Exp3,
    "random": Random,
    "fixed": Fixed,
    "curriculum": Curriculum,
}
"""Name on the command line (--learner, or --strategy for the controls) -> class; its file names the paper."""
SB3_LEARNERS = ("sb3:PPO", "sb3:A2C")


def make_learner(context: LearnerContext) -> Learner:
    """The learner that the configuration asks for: a control, one of ours, or outside code.

    UsageError for a name that nothing answers to or a class that lacks a function; UserError where
    outside code fails while it is built.
    """
    config = context.config
    name = config.learner if config.learns else config.strategy
    build = Margin if name == "margin" else find_learner(name)
    told = f"--learner: building '{name}' raised"
    blamed = blaming(lambda raised: UserError(f"{told} {raised}; correct that class"))
    with blamed if ":" in name else nullcontext():
        learner = build(context)
    needed = ["act", "update", "state_dict", "load_state_dict"]
    if config.learns and config.policy.baseline == "greedy":
        needed.append("greedy")
    if missing := [method for method in needed if not hasattr(learner, method)]:
        raise UsageError(f"--learner: '{name}' lacks {', '.join(missing)}; see lasat_ray/learners/base.py")
    if ":" in name and name not in SB3_LEARNERS:
        return OutsideLearner(learner, Plugin("--learner", name), context)
    return learner


def seeded_learner(context: LearnerContext) -> Learner:
    """The learner with its first weights, which the seed alone decides; errors as ``make_learner``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RandomKey.of(context.config.seed, "strategy init").low)
        return make_learner(context)


def find_learner(name: str) -> Callable[[LearnerContext], Learner]:
    """What builds the learner of that name; UsageError in one line where nothing does."""
    if name in LEARNERS:
        return LEARNERS[name]
    if name.startswith("sb3:"):
        return _find_sb3(name)
    if ":" not in name:
        raise unknown_name("--learner", name, [*LEARNERS, *SB3_LEARNERS, "module:Class"])
    build = load_plugin("learner", name)
    if not callable(build):
        raise UsageError(f"--learner: '{name}' is no class; see lasat_ray/learners/base.py")
    return build


def _find_sb3(name: str) -> Callable[[LearnerContext], Learner]:
    if name not in SB3_LEARNERS:
        raise unknown_name("--learner", name, SB3_LEARNERS)
    try:
        from lasat_ray.learners.sb3 import SB3Learner  # late: an extra that few install
    except ImportError as error:
        told = f"--learner: '{name}' needs stable-baselines3 ({error}); {install('sb3')}"
        raise UsageError(told) from error
    return SB3Learner


__all__ = [
    "LEARNERS",
    "SB3_LEARNERS",
    "Learner",
    "LearnerContext",
    "RemembersActing",
    "find_learner",
    "make_learner",
    "seeded_learner",
]
