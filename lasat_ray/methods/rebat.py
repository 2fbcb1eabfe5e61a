"""ReBAT, with the loss that its authors call BoAT: PGD-AT that, once the learning rate has fallen, is held
near the average of its own weights, so that it does not run ahead of the attack (Wang et al. 2023, "Balance,
Imbalance, and Rebalance"; weight, decay and beginning of the authors' code)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lasat_ray.attacks.objectives import kl_divergence
from lasat_ray.config import LossConfig
from lasat_ray.methods.base import MethodInputs, known_method
from lasat_ray.methods.losses import smoothed_cross_entropy, smoothing_of
from lasat_ray.methods.schedules import stretched

PUBLISHED = (105.0,)  # of 200 epochs, counted from 0


def decay_at(config: LossConfig, epoch: int, epochs: int) -> float:
    """The decay of the average in an epoch (from 0) of a run of ``epochs``; 0, which makes it the net itself,
    before it begins."""
    start = stretched(PUBLISHED, 200, epochs)[0] if config.rebat_start is None else config.rebat_start
    return config.rebat_decay if epoch >= start else 0.0


def loss(inputs: MethodInputs) -> Tensor:
    """CE(f(x_adv), y) + weight KL(average(x_adv) || f(x_adv)); -> [B]. The second part once there is an
    average to ask."""
    logits = inputs.logits
    own = smoothed_cross_entropy(logits.adv, inputs.y, smoothing_of(inputs))
    if logits.companion is None:
        return own
    kl = kl_divergence(F.log_softmax(logits.companion, dim=1), F.log_softmax(logits.adv, dim=1))
    return own + inputs.config.rebat_weight * kl


METHOD = known_method("rebat", loss, follow=decay_at)
