"""TRADES: clean cross-entropy plus the KL from the clean to the adversarial prediction
(Zhang et al. 2019, eq. 5). With a ``trades_beta`` head it is LAS-TRADES' target loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lasat_ray.attacks.objectives import kl_divergence
from lasat_ray.config import LossConfig
from lasat_ray.methods.base import Method
from lasat_ray.methods.losses import smoothed_cross_entropy
from lasat_ray.types import Logits, Strategy


def loss(logits: Logits, y: Tensor, strategy: Strategy, config: LossConfig) -> Tensor:
    """CE(f(x), y) + beta KL(f(x) || f(x_adv)); beta per image where the strategy sets it; -> [B]."""
    assert logits.clean is not None
    beta = config.trades_beta if strategy.trades_beta is None else strategy.trades_beta
    clean = smoothed_cross_entropy(logits.clean, y, config.label_smoothing)
    kl = kl_divergence(F.log_softmax(logits.clean, dim=1), F.log_softmax(logits.adv, dim=1))
    return clean + beta * kl


METHOD = Method(loss=loss, attack_loss="kl", start="normal", needs_clean=True, fields=("trades_beta",))
