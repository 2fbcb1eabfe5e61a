"""Advantage actor-critic (Mnih et al. 2016, synchronous) on a contextual bandit."""

from __future__ import annotations

from typing import ClassVar

from lasat_ray.learners.reinforce import Reinforce


class A2C(Reinforce):
    """An episode is one step long, so returns are rewards and the advantage is r - V(x). What is left
    of A2C beside REINFORCE with a value baseline: the value's error shapes the shared features too."""

    own_baseline: ClassVar[str] = "value"
    value_shapes_features: ClassVar[bool] = True
