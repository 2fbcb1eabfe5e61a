"""What training costs in forward passes of one image: expected from settings, counted from records.

A backward pass to the input counts one, to the weights two: an attack step is 2, a training step 3.
Unlike seconds this does not depend on the machine or on what else it did.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.config.units import ATTACK_LOSSES, COMPARING, Grid
from lasat_ray.validation.learner import READS

if TYPE_CHECKING:
    from torch import Tensor

    from lasat_ray.methods import Method
    from lasat_ray.types import AttackedBatch

Passes = tuple[float, float]
"""Passes of the target net (with its companion) and of the strategy net."""
LOOK = 0.5
"""A forward pass, in attack steps."""
PARTS = ("attack", "target update", "reference attack", "rest of the reward", "strategy net")
"""Where the passes of a round go; all but the last are the target net's."""


def round_parts(
    config: TrainConfig, *, steps: float, paid: bool, epoch: int = 0, policy_epochs: float | None = None
) -> dict[str, float]:
    """Passes an image in one round, by PARTS, whose attacks took ``steps`` steps; ``paid``: the
    strategy learned from it, in ``policy_epochs`` passes where not in as many as the settings allow.

    One look more than a data-dependent stop needed is not in ``steps``; see ``record_steps``.
    """
    from lasat_ray.methods import find_method  # late: it loads torch, --help needs none

    method = find_method(config.method)
    attack, looks = _attack_passes(config, method, steps), 1 + method.needs_clean + method.needs_helper
    # One that forms labels is asked once, before the attack; an average that is the net itself is not.
    lags = method.companion_sees != "before" and method.follow(config.loss, epoch, config.epochs) > 0
    companion = {"none": 0, "average": lags, "frozen": method.companions, "trained": 3}[method.companion]
    look_beside = {"trained": 1}.get(method.companion, companion)
    gamma = method.awp_gamma if config.loss.awp_gamma is None else config.loss.awp_gamma
    run_pgd = 3 * looks + look_beside if gamma and epoch >= config.loss.awp_warmup else 0
    parts: dict[str, float] = dict.fromkeys(PARTS, 0)
    parts["attack"] = attack
    parts["target update"] = 3 * looks + companion + run_pgd
    if config.strategy == "margin":
        parts["attack"] += 1  # a look at the clean image
    parts["strategy net"] = look = 1 if _has_net(config) else 0
    if not paid:
        return parts
    reward, restarts = config.reward, config.reward.ref_restarts
    # L2 and L3 are of the round's own images, or of held-out ones that may be fewer.
    share = reward.outcome_images / config.batch_size if reward.outcome == "heldout" else 1
    parts["reference attack"] = share * (
        restarts * 2 * reward.ref_num_steps + (restarts if restarts > 1 else 0)
    )
    parts["rest of the reward"] = 2 * share
    if reward.objective == "rate" and reward.credit == "image":  # both again, of the net before the update
        parts["rest of the reward"] += 2
    parts["strategy net"] += _learning_passes(config, policy_epochs)
    if reward.credit == "influence":  # the gradient goes back through the two passes above
        parts["rest of the reward"] += 2 * 2 * share + looks + look_beside
    if reward.lookahead == "copy":  # a rehearsal: attack, a look, a step of the copy
        parts["rest of the reward"] += attack + looks + 3 * looks + 2 * look_beside + run_pgd
        parts["strategy net"] += look
        if config.policy.baseline == "greedy":  # all of it again, for the likeliest strategies
            parts["reference attack"] *= 2
            parts["rest of the reward"] *= 2
            parts["strategy net"] += look
    return parts


def image_passes(config: TrainConfig, attacked: AttackedBatch, epoch: int) -> Tensor:
    """Passes of the target net that each image's attack and update cost, [B]; what a reward is priced by."""
    steps = steps_looked(attacked)
    none, one = (sum(round_passes(config, steps=steps, paid=False, epoch=epoch)[:1]) for steps in (0.0, 1.0))
    return none + (one - none) * steps.to(attacked.strategy.eps.dtype)


def relative_costs(config: TrainConfig, steps: Iterable[float]) -> tuple[float, ...]:
    """What a round with each number of attack ``steps`` costs over their average cost, without a reward."""
    grid = grid_of(config)
    asked = [expected_steps({**grid, "num_steps": (number,)}) for number in steps]
    costs = [round_passes(config, steps=number, paid=False)[0] for number in asked]
    return tuple(cost / fmean(costs) for cost in costs)


def steps_looked(attacked: AttackedBatch) -> Tensor:
    """Attack steps for which each image was passed, [B]: one that a rule stopped was looked at once more
    than it moved; one attacked from several starts moved in each. A look without a gradient, which chooses
    among starts or forms the clean prediction that a chosen loss compares with, is half a step."""
    strategy = attacked.strategy
    asked, taken = strategy.num_steps, attacked.stats.get("steps_taken")
    steps = asked if taken is None else (taken + 1).minimum(asked)
    if strategy.restarts is not None:
        starts = strategy.restarts.to(strategy.eps.dtype)
        steps = steps * starts + LOOK * starts * (starts > 1)
    if strategy.attack_loss is not None:
        from lasat_ray.attacks import compares  # late: it loads torch

        steps = steps + LOOK * compares(strategy.attack_loss).to(strategy.eps.dtype)
    return steps


def expected_steps(grid: Grid) -> float:
    """The mean of ``steps_looked`` where every strategy of the grid is equally likely and none is stopped."""
    starts = grid.get("restarts", (1.0,))
    looks = fmean(number * (number > 1) for number in starts)
    looks += fmean(ATTACK_LOSSES[int(code)] in COMPARING for code in grid.get("attack_loss", (0.0,)))
    return fmean(grid["num_steps"]) * fmean(starts) + LOOK * looks


def round_passes(config: TrainConfig, *, steps: float, paid: bool, epoch: int = 0) -> Passes:
    """The sums of ``round_parts`` by net."""
    parts = round_parts(config, steps=steps, paid=paid, epoch=epoch)
    strategy = parts.pop("strategy net")
    return sum(parts.values()), strategy


def expected_passes(config: TrainConfig, rounds_per_epoch: int, epochs: int | None = None) -> float:
    """Passes of both nets over ``epochs`` (default: the run's), strategies equally likely; of a run with a
    budget in passes, the budget."""
    if config.budget_passes and epochs is None:
        return config.budget_passes * config.batch_size * rounds_per_epoch
    epochs = config.epochs if epochs is None else epochs
    steps = expected_steps(grid_of(config))
    rounds = epochs * rounds_per_epoch
    paid = rounds // config.update_interval if config.learns else 0
    plain = sum(round_passes(config, steps=steps, paid=False, epoch=epochs))
    rewarded = sum(round_passes(config, steps=steps, paid=True, epoch=epochs)) if paid else 0.0
    return config.batch_size * ((rounds - paid) * plain + paid * rewarded)


def constant_passes(config: TrainConfig, rounds: int) -> float | None:
    """Passes of the target net in ``rounds`` rounds with ``--attack.num-steps`` for every image; None where
    that is what was done, or where no number of steps was chosen."""
    if config.strategy == "fixed" or len(grid_of(config).get("num_steps", ())) < 2:
        return None
    constant = replace(config, strategy="fixed")
    steps = expected_steps(grid_of(constant))
    a_round = sum(round_passes(constant, steps=steps, paid=False, epoch=config.epochs))
    return rounds * config.batch_size * a_round


def counted_passes(config: TrainConfig, rounds: Iterable[Mapping[str, Any]], first: int = 0) -> Passes:
    """Passes of the recorded rounds from ``first`` on (metrics.jsonl, kind ``round``)."""
    target = strategy = 0.0
    for record in rounds:
        if record["round"] >= first:
            parts = record_parts(config, record)
            spent = parts.pop("strategy net")
            target, strategy = target + sum(parts.values()), strategy + spent
    return config.batch_size * target, config.batch_size * strategy


def record_parts(config: TrainConfig, record: Mapping[str, Any]) -> dict[str, float]:
    """Passes an image in one recorded round, by PARTS."""
    if "progress" in record:  # of a budget, which schedules follow
        epoch = int(record["progress"] * config.epochs)
    else:
        epoch = math.ceil(record["epoch"]) - 1  # the records say where a round ended
    steps, paid, epochs = record_steps(record), "reward" in record, record.get("policy_epochs")
    return round_parts(config, steps=steps, paid=paid, epoch=epoch, policy_epochs=epochs)


def record_steps(record: Mapping[str, Any]) -> float:
    """Mean attack steps of a round, as ``steps_looked``; records of before it was told say about how many."""
    if "steps_looked" in record:
        return record["steps_looked"]
    taken, asked = record.get("steps_taken"), record["num_steps"]
    return asked if taken is None else min(taken + 1, asked)


def validation_passes(config: TrainConfig, n_val: int, n_test: int) -> float:
    """Passes of all validations and of the final test; part of a run's time, not of training's cost."""
    evaluation = config.evaluation
    val = n_val * (1 + 2 * evaluation.val_num_steps + 1) * (config.epochs // evaluation.every)
    return val + n_test * (1 + sum(2 * steps + 1 for steps in evaluation.test_num_steps))


def _reads(config: TrainConfig) -> frozenset[str]:
    """The settings that the learner reads tell what it is; one from elsewhere is taken for REINFORCE."""
    return READS.get(config.learner, READS["reinforce"])


def _has_net(config: TrainConfig) -> bool:
    """Whether images pass a strategy net: neither of blind learners nor of a table of classes."""
    return config.strategy == "learned" and "lr" in _reads(config)


def _learning_passes(config: TrainConfig, policy_epochs: float | None) -> float:
    """Of the strategy net, an image, beside the look that acts: what learning passes back and anew, and a
    look at the policy that it made."""
    reads, policy = _reads(config), config.policy
    if not _has_net(config):
        return 0.0
    epochs = policy.update_epochs if policy_epochs is None else policy_epochs
    if config.learner.startswith("sb3:"):  # three looks for metrics and buffer
        return 3.0 + 3 * (epochs if "update_epochs" in reads else 1)
    sampled = math.ceil(config.batch_size / 8) / config.batch_size  # every eighth image
    if "update_epochs" not in reads:
        return 2.0 + sampled  # the graph of the look that acts is passed back
    checks = epochs if config.learner == "ppo" and policy.target_kl is not None else 0
    return 3 * epochs + checks + sampled


def _attack_passes(config: TrainConfig, method: Method, steps: float) -> float:
    if not method.attacks or method.reuses:
        return 0.0
    loss = method.attack_loss if config.attack.loss == "method" else config.attack.loss
    # A look at the clean image; of a chosen loss it is counted with each image's steps.
    compares = "attack_loss" not in grid_of(config) and (
        loss in COMPARING or (loss == "own" and not method.looks_first)
    )
    return 2 * steps + method.looks_first + compares
