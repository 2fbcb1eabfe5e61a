"""The order of one round, and nothing else: act, attack, train, and every k-th time reward and learn."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.learners import Learner
from lasat_ray.rng import Stream
from lasat_ray.types import Action, Batch, LearnerReport, Rollout, RoundReport

_FIELDS = ("eps", "num_steps", "step_size", "trades_beta", "start_radius", "awp_gamma")  # those with a mean
_PER_IMAGE = ("loss", "adv_correct", *_FIELDS)
_NOTES = ("steps_taken", "kappa", "fosc")
_REWARD_TERMS = ("l1", "l2", "l3", "influence", "ref_correct", "clean_correct")
_PAID = ("l1", "l2", "l3", "influence", "reward")


def play_round(env: AttackStrategyVectorEnv, learner: Learner) -> RoundReport:
    """Play the env's present round. With lookahead ``real`` the action that trains the target is
    the one that is paid; with ``copy`` a rehearsal is paid first and a fresh action trains."""
    round, batch, due = env.round, env.batch, env.reward_due
    learned = LearnerReport()
    act = getattr(learner, "act_to_learn", learner.act) if due else learner.act
    action = act(batch.x, batch.index, Stream.of(env.seed, "action", round))
    paid: dict[str, Any] = {}
    if due and env.config.reward.lookahead == "copy":
        reward, paid = env.rehearse(action.index)
        learned = learner.update(_rollout(batch, action, reward, _greedy_reward(env, learner)))
        paid["reward"] = reward
        action = learner.act(batch.x, batch.index, Stream.of(env.seed, "action after rehearsal", round))
        _, _, _, _, info = env.step(action.index)
    else:
        _, reward, _, _, info = env.step(action.index)
        if due:
            learned = learner.update(_rollout(batch, action, reward))
            paid = {**info, "reward": reward}
    return _report(env, round, batch, action, info, paid, learned)


def _greedy_reward(env: AttackStrategyVectorEnv, learner: Any) -> Tensor | None:
    """Self-critical baseline: what the likeliest strategies earn in a rehearsal of their own."""
    if env.config.policy.baseline != "greedy":
        return None
    reward, _ = env.rehearse(learner.greedy(env.batch.x).index)
    return reward


def _rollout(batch: Batch, action: Action, reward: Tensor, greedy_reward: Tensor | None = None) -> Rollout:
    return Rollout(
        x=batch.x,
        action=action.index,
        log_prob=action.log_prob,
        reward=reward,
        global_size=batch.global_size,
        greedy_reward=greedy_reward,
    )


def _report(
    env: AttackStrategyVectorEnv,
    round: int,
    batch: Batch,
    action: Action,
    info: dict[str, Any],
    paid: dict[str, Any],
    learned: LearnerReport,
) -> RoundReport:
    sums = {name: info[name].double().sum() for name in (*_PER_IMAGE, *_NOTES) if name in info}
    sums |= {name: paid[name].double().sum() for name in (*_REWARD_TERMS, "reward") if name in paid}
    spread = [name for name in _PAID if name in paid]
    sums |= {f"{name}_std": (paid[name].double() ** 2).sum() for name in spread}
    sums |= {name: value.double().sum() for name, value in learned.per_image.items()}
    checked = {name: paid[name] for name in ("credit_correlation",) if name in paid}
    return RoundReport(
        round=round,
        global_size=batch.global_size,
        sums=sums,
        scalars={"grad_norm": info["grad_norm"], **checked, **learned.scalars},
        option_counts=env.space.counts(action.index),
        watched=_watched(action, info, paid, learned),
        index=batch.index,
    )


def _watched(
    action: Action, info: dict[str, Any], paid: dict[str, Any], learned: LearnerReport
) -> dict[str, Tensor]:
    """What must be a finite number, under the names that a person reads."""
    return {
        "log-probability": action.log_prob,
        "logits": info["max_logit"],
        "loss": info["loss"],
        **{name: paid[name] for name in _PAID if name in paid},
        "gradient": info["grad_norm"],
        **{name.replace("_", " "): v for name, v in learned.scalars.items() if name.endswith("grad_norm")},
    }
