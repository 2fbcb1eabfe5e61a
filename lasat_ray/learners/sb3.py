"""Stable-Baselines3's PPO and A2C as learners of the trainer: ``--learner sb3:PPO``, ``sb3:A2C``.

A round is one rollout of N one-step episodes. Every worker gathers the global batch and trains the
same SB3 model on it with the same named random numbers, so all stay equal without exchanging
gradients; acting is left to the worker's own images. What SB3 has no room for (a least exploration,
other baselines, an entropy schedule) is refused by ``validate_learner.py``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from lasat_ray.config import PolicyConfig
from lasat_ray.learners.base import LearnerContext, draw
from lasat_ray.rng import RandomKey
from lasat_ray.strategy.net import divergence, entropies
from lasat_ray.types import Action, LearnerReport, Rollout

_NO_CLIPPING = 1e30  # SB3 always clips gradients


class SB3Learner:
    """The policy is SB3's own, on the backbone that --strategy-model names; advantages and returns are
    its rollout buffer's, which for one-step episodes are r - V(x) and r."""

    def __init__(self, context: LearnerContext):
        self.config = context.config.policy
        self.group = context.group
        self.seed = context.config.seed
        self.names = context.space.names
        self.global_size = context.config.batch_size
        self.spaces = _Spaces(context)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about batch sizes and GPUs; we chose both
            self.model = _build(context.config.learner, self.spaces, context)
        self.model.set_logger(Logger(folder=None, output_formats=[]))
        self.model.rollout_buffer = RolloutBuffer(
            1,
            self.spaces.observation_space,
            self.spaces.action_space,
            device=context.device,
            gae_lambda=1.0,
            gamma=0.0,
            n_envs=self.global_size,
        )
        self.group.broadcast_from_first(self.model.policy)
        self.updates = 0

    @torch.no_grad()
    def log_probs(self, x: Tensor) -> list[Tensor]:
        """Log-probabilities of each head for images [B,C,H,W], [B,V_k] each, in eval mode."""
        self.model.policy.set_training_mode(False)
        heads: Any = self.model.policy.get_distribution(x).distribution
        return [head.logits for head in heads]

    def act(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """x [B,C,H,W] -> index [B,K], drawn from SB3's policy with our key."""
        return draw(self.log_probs(x), index, key)

    def update(self, rollout: Rollout) -> LearnerReport:
        """SB3's ``train`` on the global batch; metrics: entropies, divergence in nats, value loss."""
        before = self.log_probs(rollout.x)
        self._fill(rollout)
        with named_numbers(RandomKey.of(self.seed, "sb3", self.updates)):
            self.model.train()
        self.updates += 1
        heads = entropies(before)
        per_image = {f"policy_entropy_{name}": h for name, h in zip(self.names, heads, strict=True)}
        per_image["policy_entropy"] = torch.stack(heads).sum(0)
        per_image["policy_kl"] = divergence(before, self.log_probs(rollout.x))
        loss = torch.tensor(
            float(self.model.logger.name_to_value["train/value_loss"]), device=rollout.x.device
        )
        return LearnerReport(per_image=per_image, scalars={"policy_value_loss": loss})

    @torch.no_grad()
    def _fill(self, rollout: Rollout) -> None:
        """The global batch into the buffer; probabilities and values computed anew on all of it, so
        that they are the same bits on every worker."""
        n, gather = rollout.global_size, self.group.gather
        x, action, reward = (gather(part, n) for part in (rollout.x, rollout.action, rollout.reward))
        if self.updates == 0:  # rewards may lie far from 0; a value net has to find that out otherwise
            self.model.policy.value_net.bias.add_(reward.mean())
        value, old_log_prob, _ = self.model.policy.evaluate_actions(x, action)
        buffer, ended = self.model.rollout_buffer, np.ones(n)
        buffer.reset()
        buffer.add(
            x.cpu().numpy(), action.cpu().numpy(), reward.cpu().numpy(), ended, value[:, 0], old_log_prob
        )
        buffer.compute_returns_and_advantage(last_values=torch.zeros(n), dones=ended)

    def state_dict(self) -> dict[str, Any]:
        """Policy, optimizer and how far training has come."""
        policy = self.model.policy
        return {
            "policy": policy.state_dict(),
            "optimizer": policy.optimizer.state_dict(),
            "updates": self.updates,
            "passes": self.model._n_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.model.policy.load_state_dict(state["policy"])
        self.model.policy.optimizer.load_state_dict(state["optimizer"])
        self.updates, self.model._n_updates = state["updates"], state["passes"]


class _Spaces(gymnasium.Env[np.ndarray, np.ndarray]):
    """What SB3 asks of an environment when a model is built: its spaces."""

    def __init__(self, context: LearnerContext):
        self.observation_space = spaces.Box(0.0, 1.0, context.image_shape, np.float32)
        self.action_space = spaces.MultiDiscrete(list(context.space.sizes))


class _Backbone(BaseFeaturesExtractor):
    """Our strategy backbone as SB3's feature extractor."""

    def __init__(self, observation_space: spaces.Box, context: LearnerContext):
        features, dim = context.features()
        super().__init__(observation_space, dim)
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).float()


def _build(name: str, env: _Spaces, context: LearnerContext) -> PPO | A2C:
    policy, size = context.config.policy, context.config.batch_size
    shared: dict[str, Any] = {
        "policy": ActorCriticPolicy,
        "env": env,
        "learning_rate": policy.lr,
        "n_steps": size,
        "gamma": 0.0,
        "gae_lambda": 1.0,
        "ent_coef": policy.entropy_weight,
        "vf_coef": 0.5 * policy.value_weight,  # ours weighs half the squared error, SB3's all of it
        "max_grad_norm": policy.grad_clip or _NO_CLIPPING,
        "normalize_advantage": policy.normalize_advantage,
        "policy_kwargs": {
            "net_arch": [],
            "ortho_init": False,  # it would replace the backbone's own first weights
            "features_extractor_class": _Backbone,
            "features_extractor_kwargs": {"context": context},
            **_optimizer(policy),
        },
        "device": context.device,
    }
    if name == "sb3:A2C":
        return A2C(**shared)
    return PPO(
        **shared,
        batch_size=max(2, math.ceil(size / policy.minibatches)),
        n_epochs=policy.update_epochs,
        clip_range=policy.clip,
        target_kl=policy.target_kl,
    )


def _optimizer(policy: PolicyConfig) -> dict[str, Any]:
    kind = torch.optim.AdamW if policy.optimizer == "adam" else torch.optim.SGD
    kwargs: dict[str, Any] = {"weight_decay": policy.weight_decay}
    if policy.optimizer == "sgd":
        kwargs["momentum"] = policy.momentum
    return {"optimizer_class": kind, "optimizer_kwargs": kwargs}


@contextmanager
def named_numbers(key: RandomKey) -> Iterator[None]:
    """NumPy's and torch's own generators named inside the block, and as they were after it: SB3
    shuffles its minibatches with the one, and a net's dropout draws from the other."""
    kept = np.random.get_state()
    try:
        with torch.random.fork_rng():
            np.random.seed(key.low)
            torch.manual_seed(key.low)
            yield
    finally:
        np.random.set_state(kept)
