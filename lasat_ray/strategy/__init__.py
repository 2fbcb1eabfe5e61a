"""Which strategies exist (``space``) and the net that chooses among them (``net``)."""

from lasat_ray.strategy.net import StrategyNet
from lasat_ray.strategy.space import StrategySpace

__all__ = ["StrategyNet", "StrategySpace"]
