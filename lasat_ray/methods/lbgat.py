"""LBGAT: a natural teacher, trained beside the target, guides its boundary (Cui et al. 2021, eq. 5)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lasat_ray.attacks.objectives import kl_divergence
from lasat_ray.methods.base import MethodInputs, known_method
from lasat_ray.methods.losses import beta_of, smoothed_cross_entropy, smoothing_of


def loss(inputs: MethodInputs) -> Tensor:
    """MSE(f(x_adv), t(x)) over classes + CE(t(x), y) + beta KL(f(x) || f(x_adv)); -> [B].

    The teacher is not detached: it also moves towards the student. The student has no
    cross-entropy of its own.
    """
    logits = inputs.logits
    assert logits.clean is not None and logits.companion is not None
    guided = ((logits.adv - logits.companion) ** 2).mean(1)
    taught = smoothed_cross_entropy(logits.companion, inputs.y, smoothing_of(inputs))
    kl = kl_divergence(F.log_softmax(logits.clean, dim=1), F.log_softmax(logits.adv, dim=1))
    return guided + taught + beta_of(inputs) * kl


METHOD = known_method("lbgat", loss)
