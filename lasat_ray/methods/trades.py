"""TRADES: clean cross-entropy plus the KL from the clean to the adversarial prediction
(Zhang et al. 2019, eq. 5). With a ``trades_beta`` head it is LAS-TRADES' target loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lasat_ray.attacks.objectives import kl_divergence
from lasat_ray.methods.base import MethodInputs, known_method
from lasat_ray.methods.losses import beta_of, smoothed_cross_entropy, smoothing_of


def loss(inputs: MethodInputs) -> Tensor:
    """CE(f(x), y) + beta KL(f(x) || f(x_adv)); beta per image where the strategy sets it; -> [B]."""
    logits = inputs.logits
    assert logits.clean is not None
    clean = smoothed_cross_entropy(logits.clean, inputs.y, smoothing_of(inputs))
    kl = kl_divergence(F.log_softmax(logits.clean, dim=1), F.log_softmax(logits.adv, dim=1))
    return clean + beta_of(inputs) * kl


METHOD = known_method("trades", loss)
