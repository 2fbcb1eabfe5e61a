"""SCORE: TRADES with squared errors of probabilities in place of cross-entropy and KL
(Pang et al. 2022, section 4; form and attack of the authors' code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lasat_ray.attacks.objectives import squared_error
from lasat_ray.methods.base import MethodInputs, known_method
from lasat_ray.methods.losses import beta_of, smoothing_of


def loss(inputs: MethodInputs) -> Tensor:
    """||p(x) - target||^2 + beta ||p(x_adv) - p(x)||^2, the target label-smoothed; -> [B]."""
    logits, y, smoothing = inputs.logits, inputs.y, smoothing_of(inputs)
    assert logits.clean is not None
    p_adv, p_clean = F.softmax(logits.adv, dim=1), F.softmax(logits.clean, dim=1)
    share = torch.zeros_like(p_clean[:, :1])
    share = share + (smoothing[:, None] if isinstance(smoothing, Tensor) else smoothing)
    others = (share / (p_clean.shape[1] - 1)).expand_as(p_clean)
    target = others.scatter(1, y[:, None], 1.0 - share)
    return squared_error(p_clean, target) + beta_of(inputs) * squared_error(p_adv, p_clean)


METHOD = known_method("score", loss)
