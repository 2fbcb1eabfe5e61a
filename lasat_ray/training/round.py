"""The order of one round, and nothing else: act, attack, train, and every k-th time reward and learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor

from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv, PlayedRound
from lasat_ray.env.observation import observed
from lasat_ray.learners import Learner, RemembersActing
from lasat_ray.rng import RandomKey
from lasat_ray.types import Action, Batch, LearnerReport, RewardReport, Rollout, RoundReport
from lasat_ray.update.cost import steps_looked

_FIELDS = (
    "eps",
    "num_steps",
    "step_size",
    "trades_beta",
    "start_radius",
    "awp_gamma",
    "label_smoothing",
    "momentum",
    "restarts",
    "augmix",
    "erasing",
)
"""Those with a mean."""
_STATS = ("steps_taken", "kappa", "fosc")
_OUTCOME = ("l2", "l3", "ref_correct", "clean_correct")
_SPREAD = ("l1", "l2", "l3", "influence", "gain", "cost", "reward")  # recorded with their standard deviation


Heard = Callable[[int, Batch, Rollout, RewardReport], None]
"""Told of a rewarded round, its images, what the learner was given and from what that was made."""


def play_round(env: AttackStrategyVectorEnv, learner: Learner, heard: Heard | None = None) -> RoundReport:
    """Play the env's present round. With lookahead ``real`` the action that trains the target is the one
    that is rewarded; with ``copy`` an action is rewarded on a copy first and a fresh one trains."""
    round = env.round
    batch, rewards, learned = env.batch, env.is_reward_round, LearnerReport()
    seen = observed(env.config, batch, env.net, env.num_classes, env.target.group)
    act = learner.act_to_learn if rewards and isinstance(learner, RemembersActing) else learner.act
    action = act(seen, batch.index, RandomKey.of(env.seed, "action", env.round))
    if rewards and env.config.reward.lookahead == "copy":
        rewarded = env.evaluate_on_copy(action.index).rewarded
        assert rewarded is not None
        greedy_reward = _greedy_reward(env, learner, seen)
        rollout = _rollout(batch, seen, action, rewarded, greedy_reward)
        learned = learner.update(rollout)
        key = RandomKey.of(env.seed, "action after rehearsal", env.round)
        action = learner.act(seen, batch.index, key)
        played = env.play(action.index)
    else:
        played = env.play(action.index)
        rewarded = played.rewarded
        if rewarded is not None:
            rollout = _rollout(batch, seen, action, rewarded)
            learned = learner.update(rollout)
    if heard is not None and rewarded is not None:
        heard(round, batch, rollout, rewarded)
    report = _report(played, rewarded, action, learned, env.space.counts(action.index))
    return dataclasses.replace(report, progress=env.target.progress)


def _greedy_reward(env: AttackStrategyVectorEnv, learner: Learner, seen: Tensor) -> Tensor | None:
    """Self-critical baseline [B]: what the likeliest strategies for ``seen`` [B,C,H,W] earn on a copy of
    their own."""
    if env.config.policy.baseline != "greedy":
        return None
    greedy: Action = learner.greedy(seen)  # type: ignore[attr-defined] # make_learner asked for it
    rewarded = env.evaluate_on_copy(greedy.index).rewarded
    return None if rewarded is None else rewarded.reward


def _rollout(
    batch: Batch, seen: Tensor, action: Action, rewarded: RewardReport, greedy_reward: Tensor | None = None
) -> Rollout:
    return Rollout(
        x=seen,
        action=action.index,
        log_prob=action.log_prob,
        reward=rewarded.reward,
        global_size=batch.global_size,
        greedy_reward=greedy_reward,
        memory=action.memory,
    )


def _report(
    played: PlayedRound,
    rewarded: RewardReport | None,
    action: Action,
    learned: LearnerReport,
    option_counts: Tensor,
) -> RoundReport:
    attacked, update = played.attacked, played.update
    assert update is not None, "the trainer's rounds train"
    stats = {name: value for name, value in attacked.stats.items() if name in _STATS}
    looked = steps_looked(attacked)
    if looked is not attacked.strategy.num_steps:
        stats["steps_looked"] = looked
    fields = {name: value for name, value in attacked.strategy.items() if name in _FIELDS}
    per_image = {"loss": update.loss, "adv_correct": update.adv_correct, **fields, **stats}
    earned = {} if rewarded is None else {**rewarded.per_image(), "reward": rewarded.reward}
    size = attacked.batch.global_size
    # Figures of held-out images are means over those; the recorder divides all sums by the round's images.
    weight = dict.fromkeys(_OUTCOME, size / rewarded.outcome_size) if rewarded is not None else {}
    sums = {name: value.double().sum() * weight.get(name, 1) for name, value in (per_image | earned).items()}
    sums |= {
        f"{name}_std": (earned[name].double() ** 2).sum() * weight.get(name, 1)
        for name in _SPREAD
        if name in earned
    }
    sums |= {name: value.double().sum() for name, value in learned.per_image.items()}
    scalars = {"grad_norm": update.grad_norm, **learned.scalars}
    for name in ("credit_correlation", "price"):
        value = getattr(rewarded, name, None)
        if value is not None:
            scalars[name] = value
    # Only figures of the round's own images can name the image that went wrong.
    found = {name: earned[name] for name in _SPREAD if name in earned}
    found = {name: v if len(v) == len(update.loss) else v.sum() for name, v in found.items()}
    return RoundReport(
        round=attacked.round,
        global_size=size,
        sums=sums,
        scalars=scalars,
        option_counts=option_counts,
        # What must be a finite number, under the names that a person reads.
        watched={
            "log-probability": action.log_prob,
            "logits": update.max_logit,
            "loss": update.loss,
            **found,
            "gradient": update.grad_norm,
            **{
                name.replace("_", " "): v for name, v in learned.scalars.items() if name.endswith("grad_norm")
            },
        },
        index=attacked.batch.index,
    )
