"""Estimates of off-policy evaluation, by hand and where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from examples.off_policy_evaluation import doubly_robust, estimates, ips, snips, weights

REWARD = np.array([1.0, 0.0, 2.0, 4.0])
WEIGHT = np.array([2.0, 0.0, 0.0, 4.0])


def test_by_hand() -> None:
    assert ips(REWARD, WEIGHT) == (2 * 1 + 4 * 4) / 4
    assert snips(REWARD, WEIGHT) == (2 * 1 + 4 * 4) / 6
    fitted, other = np.array([0.5, 0.0, 2.0, 3.0]), np.array([0.5, 0.5, 3.0, 3.0])
    assert doubly_robust(REWARD, WEIGHT, fitted, other) == (0.5 + 2 * 0.5 + 0.5 + 3.0 + 3.0 + 4 * 1.0) / 4
    log = {"reward": REWARD, "eps": np.array([0.1, 0.2, 0.1, 0.2]), "num_steps": np.array([1, 1, 2, 3])}
    log["propensity"] = np.array([0.5, 0.25, 0.1, 0.2])
    assert weights(log, {"eps": 0.1, "num_steps": 1}).tolist() == [2.0, 0.0, 0.0, 0.0]
    assert weights(log, {"eps": 0.1}).tolist() == pytest.approx([2 / 3, 0.0, 10 / 3, 0.0])


@pytest.mark.parametrize("steps", [3, None])
def test_they_find_what_another_policy_earns_and_the_plain_mean_does_not(steps: int | None) -> None:
    rng = np.random.default_rng(0)
    n, odds = 40_000, np.array([0.6, 0.3, 0.1])
    label, taken = rng.integers(0, 2, n), rng.choice([1, 2, 3], n, p=odds)
    reward = taken * (1.0 + label) + rng.normal(size=n)
    log = {"label": label, "num_steps": taken, "propensity": odds[taken - 1], "reward": reward}
    found = estimates(log | {"raw_reward": reward}, {} if steps is None else {"num_steps": steps})
    assert found["logged"] == pytest.approx(1.5 * (0.6 + 0.6 + 0.3), abs=0.05)
    for name in ("IPS", "SNIPS", "DR"):
        assert found[name] == pytest.approx(1.5 * (steps or 2), abs=0.1), name
    with pytest.raises(SystemExit, match="was never chosen"):
        estimates(log | {"raw_reward": reward}, {"num_steps": 7})
