"""PGD-AT: cross-entropy at the adversarial image (Madry et al. 2018; Rice et al. 2020)."""

from __future__ import annotations

from torch import Tensor

from lasat_ray.methods.base import MethodInputs, known_method
from lasat_ray.methods.losses import smoothed_cross_entropy, smoothing_of


def loss(inputs: MethodInputs) -> Tensor:
    """CE(f(x_adv), y), label-smoothed as LAS-AT trains it; -> [B]."""
    return smoothed_cross_entropy(inputs.logits.adv, inputs.y, smoothing_of(inputs))


METHOD = known_method("pgd-at", loss)
