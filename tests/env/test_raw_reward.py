"""Rewards as other people's RL wants them: a mean that tells something, from inside no_grad too."""

from __future__ import annotations

import pytest
import torch

import lasat_ray
from lasat_ray.env import make_vector_env


def rewards(raw_reward: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    config = lasat_ray.recipe("digits", batch_size=8, update_interval=1)
    env = make_vector_env(8, config=config, raw_reward=raw_reward)
    env.reset(seed=0)
    with torch.no_grad():
        _, reward, _, _, info = env.step(torch.zeros(8, 3, dtype=torch.int64))
    return reward, info


def test_what_is_paid_has_mean_zero_and_the_raw_reward_is_what_it_was_made_of() -> None:
    weight = lasat_ray.recipe("digits").reward.l1_weight
    paid, info = rewards(raw_reward=False)
    assert float(paid.mean()) == pytest.approx(0, abs=1e-5)
    raw, again = rewards(raw_reward=True)
    assert torch.equal(info["l1"], again["l1"])
    assert torch.allclose(raw, weight * info["l1"] + info["influence"])
    assert abs(float(raw.mean())) > 0.01
