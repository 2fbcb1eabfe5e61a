"""MART: boosted cross-entropy at the adversarial image, and a KL that counts most where the clean
image is misclassified (Wang et al. 2020, eq. 11; constants of the authors' code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lasat_ray.methods.base import MethodInputs, known_method
from lasat_ray.methods.losses import beta_of, smoothed_cross_entropy, smoothing_of

TINY = 1e-12  # inside the logarithms
MARGIN_ONE, WEIGHT_ONE = 1.0001, 1.0000001  # the published 1s, off by what keeps logarithms finite


def loss(inputs: MethodInputs) -> Tensor:
    """BCE(p_adv, y) + beta (1 - p_clean[y]) KL(p_clean || p_adv), nothing detached; -> [B]."""
    logits, y = inputs.logits, inputs.y
    assert logits.clean is not None
    p_adv, p_clean = F.softmax(logits.adv, dim=1), F.softmax(logits.clean, dim=1)
    return boosted(inputs, p_adv) + beta_of(inputs) * weighted_kl(p_clean, p_adv, y)


def boosted(inputs: MethodInputs, p_adv: Tensor) -> Tensor:
    """CE minus log(1 - the most probable wrong class), label-smoothed where the settings say so; [B]."""
    others = p_adv.detach().scatter(1, inputs.y[:, None], -1.0)
    # One class: amax would share the gradient of a tie among all. Sorted as the authors do it, the last wins.
    runner_up = others.argsort(dim=1, stable=True)[:, -1:]
    wrong = p_adv.gather(1, runner_up)[:, 0]
    plain = smoothed_cross_entropy(inputs.logits.adv, inputs.y, smoothing_of(inputs))
    return plain - torch.log(MARGIN_ONE - wrong + TINY)


def weighted_kl(p_clean: Tensor, p_adv: Tensor, y: Tensor) -> Tensor:
    """(1 - p_clean[y]) KL(p_clean || p_adv); [B,N], [B,N], [B] -> [B]."""
    true = p_clean.gather(1, y[:, None])[:, 0]
    log_clean = torch.log(p_clean.clamp(min=torch.finfo(p_clean.dtype).tiny))
    kl = (p_clean * (log_clean - torch.log(p_adv + TINY))).sum(1)
    return (WEIGHT_ONE - true) * kl


METHOD = known_method("mart", loss)
