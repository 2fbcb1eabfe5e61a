"""One round of adversarial training as one step of a contextual bandit.

Observation: the batch of clean images. Action: for each image an index per strategy field.
Step: attack every image as chosen, let the target net learn, form the reward. Every episode is
one step long. The trainer steps this very object; no other code forms a reward.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor, nn

from lasat_ray.attacks import attack_batch
from lasat_ray.attacks.balance import attack_balanced
from lasat_ray.config import TrainConfig
from lasat_ray.data import Batches
from lasat_ray.methods import Scene
from lasat_ray.models import AttackView
from lasat_ray.rng import Stream
from lasat_ray.strategy import StrategySpace
from lasat_ray.types import Batch, Notes, RewardTerms, Strategy
from lasat_ray.update.credit import influence
from lasat_ray.update.credit_check import credit_correlation
from lasat_ray.update.reward import combine, reference_images, reference_starts, reward_terms
from lasat_ray.update.target_step import TargetStep

Info = dict[str, Any]


class AttackStrategyVectorEnv(VectorEnv):
    """The game between strategy and target net, one batch a step, torch tensors on the device.

    ``num_envs`` = images of this worker's share of a round. reward [B] is zero in rounds without
    strategy update (``reward_due`` tells before the step). ``info`` holds per image: ``x_adv``
    [B,C,H,W], every strategy field, what the method's attack noted, ``adv_correct``, and when
    rewarded ``l1``, ``l2``, ``l3``, ``ref_correct``, ``clean_correct``, and ``influence`` with
    that credit (all [B]).

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
        train_target: bool = True,
    ):
        if not train_target and config.reward.lookahead == "real":
            raise ValueError(
                "train_target: False has no update to look ahead with; set reward.lookahead 'copy'"
            )
        self.target = target
        self.space = space
        self.config = config
        self.train_target = train_target
        self._make_batches = make_batches
        self._rehearsed = False
        self.attack_view = AttackView(config.speed)
        self._before: nn.Module | None = None
        self._start_game(config.seed, first_round=0)
        self._declare_spaces()

    def _declare_spaces(self) -> None:
        self.num_envs = len(self.batch.x)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        shape = tuple(self.batch.x.shape[1:])
        self.single_observation_space = spaces.Box(0.0, 1.0, shape, np.float32)
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
        self.batch: Batch = self.batches.batch(round)

    @property
    def net(self) -> nn.Module:
        """The target net."""
        return self.target.net

    @property
    def reward_due(self) -> bool:
        """True in every k-th round, k = update_interval, where there is somebody to be paid."""
        learned = self.config.strategy == "learned"
        return learned and (self.round + 1) % self.config.update_interval == 0

    @property
    def check_due(self) -> bool:
        """True in the rewarded rounds whose credit is compared with what images really did."""
        every, update = self.config.reward.check_every, (self.round + 1) // self.config.update_interval
        return bool(every) and self.reward_due and update % every == 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, Info]:
        """The present batch [B,C,H,W] in [0,1]; with a seed, the first batch of that seed's order. Weights
        stay."""
        if seed is not None:
            self._start_game(seed, first_round=0)
        return self.batch.x, {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Info]:
        """Attack, train, reward, next batch: one round. ``actions`` int64 [B,K] -> next images [B,C,H,W],
        reward [B], terminated [B] (all True), truncated [B] (all False), info."""
        batch, strategy = self.batch, self.space.decode(actions)
        x_adv, strategy, notes = self.attack_as_chosen(strategy)
        info: Info = {"x_adv": x_adv, **dict(strategy.items()), **notes}
        reward = torch.zeros_like(strategy.eps)
        self._before = copy.deepcopy(self.net) if self.check_due and not self._rehearsed else None
        if self.reward_due and not self._rehearsed and self.config.reward.lookahead == "copy":
            reward = self._reward_by_copy(x_adv, strategy, notes, info)
        if self.train_target:
            report = self.target(batch, x_adv, strategy, self.round, notes)
            info |= {"loss": report.loss, "adv_correct": report.adv_correct, "grad_norm": report.grad_norm}
            info["max_logit"] = report.max_logit
            if self.reward_due and self.config.reward.lookahead == "real":
                reward = self._reward(self.net, report.l1, strategy, notes, info)
        ended = torch.ones(len(reward), dtype=torch.bool, device=reward.device)
        info |= {"final_obs": batch.x, "_final_obs": ended}
        self._rehearsed = False
        self.seek(self.round + 1)
        return self.batch.x, reward, ended, torch.zeros_like(ended), info

    def rehearse(self, actions: Tensor) -> tuple[Tensor, Info]:
        """The reference code's order: a reward [B] from a copy first, for ``actions`` [B,K]; the round is
        still to be played.

        Rehearsals of one round start alike, so that two actions' rewards can be compared."""
        self._before = copy.deepcopy(self.net) if self.check_due else None
        self._rehearsed = False
        strategy = self.space.decode(actions)
        x_adv, strategy, notes = self.attack_as_chosen(strategy)
        info: Info = {"x_adv": x_adv, **dict(strategy.items()), **notes}
        reward = self._reward_by_copy(x_adv, strategy, notes, info)
        self._rehearsed = True
        return reward, info

    def attack(self, strategy: Strategy) -> Tensor:
        """x_adv [B,C,H,W] of the present batch under the method's attack, target net in eval mode."""
        return self.attack_as_chosen(strategy)[0]

    def attack_as_chosen(self, strategy: Strategy) -> tuple[Tensor, Strategy, Notes]:
        """The same with the strategies as the method limited them, and what its rule noted."""
        method, attack = self.target.method, self.config.attack
        if not method.attacks:
            return self.batch.x, strategy, {}
        stream = Stream.of(self.seed, "attack start", self.round, int(self._rehearsed))
        scene = self._scene(strategy, stream)
        if method.limit:
            scene = dataclasses.replace(scene, strategy=method.limit(scene))
        rule = method.rule(scene) if method.rule else None
        run = partial(
            attack_batch,
            self.attack_view(self.net, self.batch.x),
            stream=stream,
            loss=method.attack_loss if attack.loss == "method" else attack.loss,
            start_kind=method.start if attack.start == "method" else attack.start,
            rule=rule,
            bucket=self.config.speed.bucket,
            norm=attack.norm,
        )
        if self.config.speed.balance and rule is None:
            x_adv = attack_balanced(self.target.world, run, self.batch, scene.strategy)
        else:
            x_adv = run(self.batch, scene.strategy)
        notes = rule.notes() if rule else {}
        return x_adv, scene.strategy, method.conclude(notes, scene) if method.conclude else notes

    def _scene(self, strategy: Strategy, stream: Stream) -> Scene:
        return Scene(
            batch=self.batch,
            strategy=strategy,
            stream=stream,
            config=self.config.loss,
            epoch=self.target.epoch(self.round),
            epochs=self.config.epochs,
            strength=self.target.strength,
            world=self.target.world,
        )

    def _reward_by_copy(self, x_adv: Tensor, strategy: Strategy, notes: Notes, info: Info) -> Tensor:
        given = (self.batch, x_adv, strategy, self.round, notes)
        l1, info["adv_correct"] = self.target.attack_strength(*given)
        return self._reward(self.target.stepped_copy(*given), l1, strategy, notes, info)

    def _reward(
        self, looked_ahead: nn.Module, l1: Tensor, strategy: Strategy, notes: Notes, info: Info
    ) -> Tensor:
        config, batch = self.config.reward, self.batch
        norm, stream = self.config.attack.norm, Stream.of(self.seed, "reference start", self.round)
        starts = reference_starts(batch, config, stream, norm)
        view = self.attack_view(looked_ahead, batch.x)
        x_ref = reference_images(view, batch, config, starts, norm)
        by_influence, world = config.credit == "influence", self.target.world
        # Only the net itself is tied to the weights that a credit differentiates.
        looking = looked_ahead if by_influence else view
        terms: RewardTerms = reward_terms(looking, batch, x_ref, l1, graph=by_influence)
        outcome = config.alpha * terms.l2 + config.beta * terms.l3
        task = self.target.task(batch, info["x_adv"], strategy, self.round, notes)
        if by_influence:
            reach = self.target.reach
            info["influence"] = influence(looked_ahead, task, outcome, self.config.loss, world, reach=reach)
            terms = terms.detach()
        info |= {"l1": terms.l1, "l2": terms.l2, "l3": terms.l3}
        info |= {"ref_correct": terms.ref_correct, "clean_correct": terms.clean_correct}
        if self._before is not None:
            rate, credit = self.target.rate(self.round), info.get("influence", outcome)
            info["credit_correlation"] = credit_correlation(
                self._before, task, credit, x_ref, self.config.loss, config, lr=rate, world=world
            )
        return combine(terms, config, batch.global_size, world, info.get("influence"))


class AttackStrategyEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """The same game one image at a time in NumPy, for anybody's RL code.

    Observation float32 (C,H,W) in [0,1]; action MultiDiscrete over the grid; reward float;
    every episode ends after one step.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(self, core: AttackStrategyVectorEnv):
        assert core.num_envs == 1
        self.core = core
        self.observation_space = core.single_observation_space
        self.action_space = core.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Info]:
        """The present image [C,H,W]; with a seed, the first of another order."""
        super().reset(seed=seed)
        if seed is not None:
            self.core.reset(seed=int(self.np_random.integers(2**31)))
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, Info]:
        """``action`` [K] -> the image that was attacked [C,H,W], reward, True, False, info without B."""
        index = torch.as_tensor(np.asarray(action, dtype=np.int64)[None], device=self.core.batch.x.device)
        observation = self._observation()
        _, reward, _, _, info = self.core.step(index)
        skipped = ("final_obs", "_final_obs")
        told = {k: v.squeeze(0).cpu().numpy() for k, v in info.items() if k not in skipped}
        return observation, float(reward[0]), True, False, told

    def _observation(self) -> np.ndarray:
        # A copy: callers may keep what they get.
        return self.core.batch.x[0].float().cpu().numpy().copy()
