"""PGD-AT: cross-entropy at the adversarial image (Madry et al. 2018; Rice et al. 2020)."""

from __future__ import annotations

from torch import Tensor

from lasat_ray.config import LossConfig
from lasat_ray.methods.base import Method
from lasat_ray.methods.losses import smoothed_cross_entropy
from lasat_ray.types import Logits, Strategy


def loss(logits: Logits, y: Tensor, strategy: Strategy, config: LossConfig) -> Tensor:
    """CE(f(x_adv), y), label-smoothed as LAS-AT trains it; -> [B]."""
    return smoothed_cross_entropy(logits.adv, y, config.label_smoothing)


METHOD = Method(loss=loss)
