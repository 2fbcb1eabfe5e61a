"""Refuses settings that do not go with the learner; the part of ``validate.py`` that knows learners
by name, so that no torch is loaded."""

from __future__ import annotations

import math
from dataclasses import fields

from lasat_ray.config import PolicyConfig, TrainConfig, grid_of
from lasat_ray.config.json_io import flag
from lasat_ray.errors import refusal
from lasat_ray.recipes import find_recipe

_STEP = frozenset({"optimizer", "lr", "momentum", "weight_decay", "grad_clip"})
_ENTROPY = frozenset({"entropy_weight", "entropy_schedule", "entropy_final"})
_NET = _STEP | _ENTROPY | {"min_exploration", "initial_price", "head", "normalize_advantage", "value_weight"}
_EPOCHS = _NET | {"baseline", "update_epochs", "minibatches"}
_ARMS = frozenset({"exploration", "discount"})
_SB3 = _STEP | {"entropy_weight", "normalize_advantage", "value_weight"}
READS: dict[str, frozenset[str]] = {
    "reinforce": _NET | {"baseline"},
    "a2c": _NET,
    "ppo": _EPOCHS | {"clip", "target_kl"},
    "mirror-descent": _EPOCHS | {"mirror_step"},
    "ucb": _ARMS,
    "thompson": _ARMS,
    "exp3": frozenset({"min_exploration"}),
    "random": frozenset(),
    "fixed": frozenset(),
    "curriculum": frozenset(),
    "sb3:A2C": _SB3,
    "sb3:PPO": _SB3 | {"update_epochs", "minibatches", "clip", "target_kl"},
}  # the settings of --policy that each learner of ours reads
MOST_ARMS = 4096


def check_learner(config: TrainConfig) -> None:
    """UsageError for the first --policy setting that cannot work, or that the learner would ignore."""
    if not config.learns:
        return
    if config.learner in READS:
        _check_read(config)
    if config.strategy == "class-wise":
        _check_table(config)
    _check_step(config.policy)
    _check_baseline(config)
    _check_arms(config)
    if config.learner.startswith("sb3:") and config.precision == "fp64":
        what = "has no effect on Stable-Baselines3, which computes in fp32"
        raise refusal("--precision", "'fp64'", what, "use --precision fp32")


def _check_read(config: TrainConfig) -> None:
    """A recipe's settings of the policy may go unread; what somebody set beside them must not."""
    recipe = find_recipe(config.recipe)
    usual = recipe.config.policy if recipe else PolicyConfig()
    for name in (f.name for f in fields(PolicyConfig)):
        value = getattr(config.policy, name)
        if name not in READS[config.learner] and value not in (getattr(usual, name), getattr(_OWN, name)):
            shown = f"'{value}'" if isinstance(value, str) else value
            what = f"has no effect with --learner {config.learner}"
            raise refusal(flag(f"policy.{name}"), shown, what, "leave it out")


_OWN = PolicyConfig()


def _check_table(config: TrainConfig) -> None:
    """A table of classes wants a learner that looks at what it acts on, and no net of images."""
    reads = READS.get(config.learner)
    if reads is not None and "lr" not in reads:
        what = "looks at nothing, so it cannot tell classes apart (--strategy class-wise)"
        raise refusal("--learner", f"'{config.learner}'", what, "use ppo, say, or --strategy learned")
    recipe = find_recipe(config.recipe)
    if config.strategy_model not in (TrainConfig().strategy_model, recipe and recipe.config.strategy_model):
        what = "has no effect with --strategy class-wise, whose logits are a table"
        raise refusal("--strategy-model", f"'{config.strategy_model}'", what, "leave it out")


def _check_step(policy: PolicyConfig) -> None:
    if policy.optimizer == "adam" and policy.momentum:
        what = "has no effect with --policy.optimizer adam"
        raise refusal("--policy.momentum", policy.momentum, what, "give 0, or --policy.optimizer sgd")
    if policy.entropy_schedule == "constant" and policy.entropy_final:
        what = "has no effect with --policy.entropy-schedule constant"
        raise refusal("--policy.entropy-final", policy.entropy_final, what, "use linear or cosine")
    if policy.entropy_schedule != "constant" and not policy.entropy_weight and not policy.entropy_final:
        what = "has no weight to change"
        shown = f"'{policy.entropy_schedule}'"
        raise refusal("--policy.entropy-schedule", shown, what, "give --policy.entropy-weight, say 0.1")


def _check_baseline(config: TrainConfig) -> None:
    policy, reward = config.policy, config.reward
    option, shown = "--policy.baseline", f"'{policy.baseline}'"
    if reward.credit == "batch":
        if policy.baseline in ("mean", "leave-one-out"):
            what = "cancels a reward that is the same for the whole batch (--reward.credit batch)"
            raise refusal(option, shown, what, "use running or none")
        if policy.normalize_advantage and policy.baseline not in ("learner", "value"):
            what = "makes every advantage 0 with --reward.credit batch"
            raise refusal("--policy.normalize-advantage", "True", what, "use --policy.baseline value")
    if policy.baseline == "greedy":
        if reward.lookahead != "copy":
            what = "needs a second reward of the same round, which the real update gives but once"
            raise refusal(option, shown, what, "add --reward.lookahead copy")
        if reward.standardize:
            what = "compares rewards of two rehearsals, and each has mean 0 once standardized"
            raise refusal(option, shown, what, "use --reward.no-standardize")


def _check_arms(config: TrainConfig) -> None:
    if config.learner in ("ucb", "thompson"):
        arms = math.prod(len(values) for values in grid_of(config).values())
        if arms > MOST_ARMS:
            what = f"would have to try each of {arms} joint strategies"
            remedy = f"give a coarser --attack.grid, of at most {MOST_ARMS}"
            raise refusal("--learner", f"'{config.learner}'", what, remedy)
    if config.learner == "exp3" and not config.policy.min_exploration:
        what = "leaves exp3 no gamma to explore with"
        raise refusal("--policy.min-exploration", 0, what, "give 0.1, say")
