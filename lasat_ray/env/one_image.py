"""The game one image at a time in NumPy: what ``gymnasium.make`` returns."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv, Info


class AttackStrategyEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """The same game one image at a time in NumPy, for anybody's RL code.

    Observation float32 (C,H,W) in [0,1], float64 with that precision; action MultiDiscrete over the grid;
    reward float; every episode ends after one step.
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
        observation = self._observation()
        _, reward, _, _, info = self.core.step(np.asarray(action)[None])
        skipped = ("final_obs", "_final_obs")
        told = {k: v.squeeze(0).cpu().numpy() for k, v in info.items() if k not in skipped}
        return observation, float(reward[0]), True, False, told

    def _observation(self) -> np.ndarray:
        # A copy: callers may keep what they get.
        return self.core.batch.x[0].cpu().numpy().copy()
