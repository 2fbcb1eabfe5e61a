"""Which strategies exist (``space``), the net that chooses (``net``), its BatchNorm (``statistics``)."""

from lasat_ray.strategy.net import StrategyNet
from lasat_ray.strategy.space import StrategySpace

__all__ = ["StrategyNet", "StrategySpace"]
