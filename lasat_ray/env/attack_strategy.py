"""One round of adversarial training as one step of a contextual bandit.

Observation: the batch of clean images. Action: for each image an index per strategy field.
Step: attack every image as chosen, let the target net learn, form the reward. Every episode is
one step long. The trainer steps this very object; no other code forms a reward.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor, nn

from lasat_ray.attacks import attack_batch
from lasat_ray.attacks.balance import attack_balanced
from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.data import Batches, OutcomeBatches
from lasat_ray.data.strength import augmented
from lasat_ray.env.actions import checked_actions
from lasat_ray.methods import AttackContext
from lasat_ray.models import AttackView
from lasat_ray.rng import RandomKey
from lasat_ray.strategy import StrategySpace
from lasat_ray.types import AttackedBatch, Batch, RewardReport, StepReport, Strategy
from lasat_ray.update.cost import image_passes
from lasat_ray.update.credit import influence
from lasat_ray.update.credit_check import credit_correlation
from lasat_ray.update.price import Price
from lasat_ray.update.reward import (
    combine,
    outcome_gain,
    raw_reward,
    reference_images,
    reference_starts,
    reward_terms,
)
from lasat_ray.update.target_step import TargetStep

Info = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlayedRound:
    """One round as it was played. ``update``: None where the target did not train; ``rewarded``: None in
    rounds without reward."""

    attacked: AttackedBatch
    update: StepReport | None
    rewarded: RewardReport | None


class AttackStrategyVectorEnv(VectorEnv):
    """The game between strategy and target net, one batch a step, torch tensors on the device.

    ``num_envs`` = images of this worker's share of a round. reward [B] is zero in rounds without
    strategy update (``is_reward_round`` tells before the step). ``info`` holds per image: ``x_adv``
    [B,C,H,W], every strategy field, what the method's rule found out, ``adv_correct``, and when
    rewarded ``l1``, ``l2``, ``l3``, ``ref_correct``, ``clean_correct``, and ``influence`` with
    that credit (all [B]).

    ``raw_reward``: ``step`` gives rewards as they are before they are standardized over the batch, so that
    their mean over a round can rise; the trainer, which calls ``play``, pays as the settings say.

    ``train_target`` False keeps the target net as it is, for learners that only study the bandit;
    it needs lookahead ``copy``, since nothing else looks ahead then (else ValueError).
    """

    def __init__(
        self,
        target: TargetStep,
        make_batches: Callable[[int], Batches],
        space: StrategySpace,
        config: TrainConfig,
        *,
        num_classes: int,
        train_target: bool = True,
        raw_reward: bool = False,
        outcome: OutcomeBatches | None = None,
        notes: Sequence[str] = (),
    ):
        if not train_target and config.reward.lookahead == "real":
            raise ValueError(
                "train_target: False has no update to look ahead with; set reward.lookahead 'copy'"
            )
        self.target = target
        self.space = space
        self.config = config
        self.num_classes = num_classes
        self.train_target = train_target
        self.raw_reward = raw_reward
        self.outcome = outcome
        """The held-out images that rewarded rounds ask; None: the round's own."""
        self.notes = notes
        """What to tell once about the target's first weights."""
        self.price = Price(config.reward.cost_target) if config.reward.objective == "rate" else None
        self._make_batches = make_batches
        self._evaluated_on_copy = False
        self.attack_view = AttackView(config.speed)
        self._start_game(config.seed, first_round=0)
        self._declare_spaces()

    def _declare_spaces(self) -> None:
        self.num_envs = len(self.batch.x)
        self.autoreset_mode = AutoresetMode.SAME_STEP  # where TorchRL looks for it
        self.metadata = {"autoreset_mode": self.autoreset_mode}
        shape = tuple(self.batch.x.shape[1:])
        dtype = np.float64 if self.batch.x.dtype == torch.float64 else np.float32
        self.single_observation_space = spaces.Box(0.0, 1.0, shape, dtype)
        self.single_action_space = spaces.MultiDiscrete(list(self.space.sizes))
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _start_game(self, seed: int, first_round: int) -> None:
        self.seed = seed
        self.batches = self._make_batches(seed)
        self.seek(first_round)

    def seek(self, round: int) -> None:
        """Go to a round without playing the ones before; what a resumed run does."""
        self.round = round
        self.batch: Batch = self.batches.batch(round // self.replays)

    @property
    def replays(self) -> int:
        """Rounds in a row that train on one batch: as many as attacks have steps where each round's gradient
        is the next round's step."""
        return int(grid_of(self.config)["num_steps"][0]) if self.target.method.reuses else 1

    @property
    def net(self) -> nn.Module:
        """The target net, which the env trains."""
        return self.target.net

    @property
    def is_reward_round(self) -> bool:
        """True in every k-th round, k = update_interval, where there is somebody to be rewarded."""
        learned = self.config.learns
        return learned and (self.round + 1) % self.config.update_interval == 0

    @property
    def is_check_round(self) -> bool:
        """True in the rewarded rounds whose credit is compared with what images really did."""
        every, update = self.config.reward.check_every, (self.round + 1) // self.config.update_interval
        return bool(every) and self.is_reward_round and update % every == 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, Info]:
        """The present batch [B,C,H,W] in [0,1]; with a seed, the first batch of that seed's order. Weights
        stay."""
        if seed is not None:
            self._start_game(seed, first_round=0)
        return self.batch.x, {}

    @torch.enable_grad()  # attacks and lookahead differentiate, also where a collector of somebody's does not
    def step(self, actions: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Info]:
        """Attack, train, reward, next batch: one round. ``actions`` int64 [B,K] -> next images [B,C,H,W],
        reward [B], terminated [B] (all True), truncated [B] (all False), info. UsageError for an action that
        the grid has not."""
        seen = self.batch.x
        played = self.play(checked_actions(actions, self.batch, self.space))
        reward = torch.zeros_like(played.attacked.strategy.eps)
        if played.rewarded is not None:
            raw = played.rewarded.raw if self.raw_reward else None
            reward = played.rewarded.reward if raw is None else raw
        ended = torch.ones(len(reward), dtype=torch.bool, device=reward.device)
        return self.batch.x, reward, ended, torch.zeros_like(ended), _info(played, seen, ended)

    def play(self, actions: Tensor) -> PlayedRound:
        """What ``step`` does, ``actions`` int64 [B,K], as one value; the trainer calls this."""
        reward_config = self.config.reward
        attacked = self.attack_as_chosen(self.space.decode(actions))
        due = self.is_reward_round and not self._evaluated_on_copy
        before = copy.deepcopy(self.net) if due and self._compares_with_before else None
        rewarded = update = None
        if due and reward_config.lookahead == "copy":
            rewarded = self._reward_by_copy(attacked, before)
        if self.train_target:
            update = self.target(attacked)
            if self.is_reward_round and reward_config.lookahead == "real":
                rewarded = self._reward(self.net, update.l1, attacked, before)
        self._evaluated_on_copy = False
        self.seek(self.round + 1)
        return PlayedRound(attacked=attacked, update=update, rewarded=rewarded)

    def evaluate_on_copy(self, actions: Tensor) -> PlayedRound:
        """The reference code's order: ``actions`` [B,K] are rewarded by a stepped copy first; the round
        itself is still to be played.

        Every evaluation of one round starts alike, so that two actions' rewards can be compared."""
        before = copy.deepcopy(self.net) if self._compares_with_before else None
        self._evaluated_on_copy = False
        attacked = self.attack_as_chosen(self.space.decode(actions))
        rewarded = self._reward_by_copy(attacked, before)
        self._evaluated_on_copy = True
        return PlayedRound(attacked=attacked, update=None, rewarded=rewarded)

    def attack(self, strategy: Strategy) -> Tensor:
        """x_adv [B,C,H,W] of the present batch under the method's attack, target net in eval mode."""
        return self.attack_as_chosen(strategy).x_adv

    def attack_as_chosen(self, strategy: Strategy) -> AttackedBatch:
        """The present batch attacked by the strategies as the method limits them, and what its rule found."""
        method, attack = self.target.method, self.config.attack
        # Drawn alike for a rehearsal and the round: only the strengths that were chosen differ.
        batch = augmented(self.batch, strategy, RandomKey.of(self.seed, "augment by strategy", self.round))
        if not method.attacks:
            return AttackedBatch(batch=batch, x_adv=batch.x, strategy=strategy, round=self.round)
        key = RandomKey.of(self.seed, "attack start", self.round, int(self._evaluated_on_copy))
        view = self.attack_view(self.net, self.batch.x)
        context = dataclasses.replace(self._attack_context(strategy, key), batch=batch, net=view)
        context = method.labelled(context)
        if method.limit:
            context = dataclasses.replace(context, strategy=method.limit(context))
        rule = method.rule(context) if method.rule else None
        run = partial(
            attack_batch,
            view,
            key=key,
            loss=method.raised(context, attack.loss),
            start_kind=method.start if attack.start == "method" else attack.start,
            rule=rule,
            bucket=self.config.speed.bucket,
            norm=attack.norm,
        )
        if method.adversary is not None:
            x_adv = method.adversary(context)
        elif self.config.speed.balance and rule is None:
            x_adv = attack_balanced(self.target.group, run, context.batch, context.strategy)
        else:
            x_adv = run(context.batch, context.strategy)
        stats = rule.stats() if rule else {}
        return AttackedBatch(
            batch=context.batch,
            x_adv=x_adv,
            strategy=context.strategy,
            round=self.round,
            stats=method.conclude(stats, context) if method.conclude else stats,
        )

    def _attack_context(self, strategy: Strategy, key: RandomKey) -> AttackContext:
        return AttackContext(
            batch=self.batch,
            strategy=strategy,
            key=key,
            config=self.config.loss,
            epoch=self.target.epoch(self.round),
            epochs=self.config.epochs,
            strength=self.target.strength,
            group=self.target.group,
            memory=self.target.remembered(self.round),
            progress=self.target.share(self.round),
            companion=self.target.companion,
        )

    def _reward_by_copy(self, attacked: AttackedBatch, before: nn.Module | None) -> RewardReport:
        l1, correct = self.target.attack_strength(attacked)
        rewarded = self._reward(self.target.stepped_copy(attacked), l1, attacked, before)
        return dataclasses.replace(rewarded, adv_correct=correct)

    @property
    def _compares_with_before(self) -> bool:
        """Whether this round's reward needs the net from before the update."""
        reward = self.config.reward
        return self.is_check_round or (reward.objective == "rate" and reward.credit == "image")

    def _reward(
        self, looked_ahead: nn.Module, l1: Tensor, attacked: AttackedBatch, before: nn.Module | None
    ) -> RewardReport:
        """The reward of a round; ``before``: the net before the update, where it is compared with."""
        config, group = self.config.reward, self.target.group
        # What an update is worth is measured on the images as they came, by their true labels: whoever
        # chooses how an image is varied or labelled in training must not choose its own examination.
        asked = self.batch if self.outcome is None else self.outcome.batch(self.seed, self.round)
        norm, key = self.config.attack.norm, RandomKey.of(self.seed, "reference start", self.round)
        view = self.attack_view(looked_ahead, asked.x)
        x_ref = reference_images(view, asked, config, reference_starts(asked, config, key, norm), norm)
        by_influence = config.credit == "influence"
        # Only the net itself is tied to the weights that a credit differentiates.
        looking = looked_ahead if by_influence else view
        terms = reward_terms(looking, asked, x_ref, l1, graph=by_influence)
        outcome = config.alpha * terms.l2 + config.beta * terms.l3
        task, effect, correlation = self.target.task(attacked), None, None
        if by_influence:
            effect = influence(
                looked_ahead,
                task,
                outcome,
                self.config.loss,
                group,
                outcome_size=asked.global_size,
                reach=self.target.reach,
            )
            terms = terms.detach()
        if self.is_check_round and before is not None:
            credit = outcome if effect is None else effect
            rate = self.target.rate(self.round)
            with self.target.synced():
                correlation = credit_correlation(
                    before,
                    task,
                    credit,
                    x_ref,
                    self.config.loss,
                    config,
                    lr=rate,
                    group=group,
                    outcome_batch=asked,
                )
        gain = cost = price = None
        if self.price is not None:
            gain = outcome_gain(terms, before, asked, x_ref, config) if effect is None else effect
            cost = image_passes(self.config, attacked, self.target.epoch(self.round))
            price = self.price.update(self.round, gain, cost, attacked.batch.global_size, group)
        priced = None if price is None or cost is None else price * cost
        return RewardReport(
            reward=combine(terms, config, attacked.batch.global_size, group, effect, price=priced),
            raw=raw_reward(terms, config, effect, priced),
            terms=terms,
            outcome_size=asked.global_size,
            influence=effect,
            credit_correlation=correlation,
            gain=gain,
            cost=cost,
            price=price,
        )


def _info(played: PlayedRound, seen: Tensor, ended: Tensor) -> Info:
    """A played round as Gymnasium's dictionary, figures [B] per image by name; ``seen`` [B,C,H,W]: what was
    observed; ``ended`` [B]."""
    attacked, update, rewarded = played.attacked, played.update, played.rewarded
    info: Info = {"x_adv": attacked.x_adv, **dict(attacked.strategy.items()), **attacked.stats}
    if rewarded is not None:
        info |= rewarded.per_image()
        others = {"adv_correct": rewarded.adv_correct, "credit_correlation": rewarded.credit_correlation}
        info |= {name: value for name, value in others.items() if value is not None}
    if update is not None:
        names = ("loss", "adv_correct", "grad_norm", "max_logit")
        info |= {name: getattr(update, name) for name in names}
    return {**info, "final_obs": seen, "_final_obs": ended}
