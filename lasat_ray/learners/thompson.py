"""Thompson sampling with a normal posterior for every joint strategy (Agrawal and Goyal 2013)."""

from __future__ import annotations

import torch
from torch import Tensor

from lasat_ray.learners.arms import JointArms
from lasat_ray.rng import RandomKey
from lasat_ray.types import Action


class Thompson(JointArms):
    """Mean reward of an arm ~ N((m + sum) / (n + 1), s^2 / (n + 1)): the prior is one observation at
    the mean m of all rewards, s their deviation times ``exploration``. Every image draws its own
    means and takes the arm whose is the largest; before the first reward all arms are alike."""

    def posterior(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every arm's mean reward, [A] each."""
        mean, deviation = self.mean_and_deviation()
        n = self.count + 1
        return (mean + self.total) / n, self.config.exploration * deviation / n.sqrt()

    def act(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """An arm an image, as index [B,K]; log_prob 0."""
        mean, deviation = self.posterior()
        drawn = mean + deviation * key.normal(index, (len(mean),), torch.float64)
        return Action(index=self.action_of(drawn.argmax(1)), log_prob=torch.zeros_like(x[:, 0, 0, 0]))
