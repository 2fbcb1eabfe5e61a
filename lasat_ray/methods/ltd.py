"""LTD, low-temperature distillation: TRADES whose hard label becomes what a frozen teacher says of
the clean image at a low temperature (Chen and Lee 2021). Its code is not published: the form
follows the abstract, with the student's temperature 1 in training and inference."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lasat_ray.attacks.objectives import kl_divergence
from lasat_ray.methods.base import MethodInputs, known_method
from lasat_ray.methods.losses import beta_of


def loss(inputs: MethodInputs) -> Tensor:
    """CE(f(x), softmax(t(x) / T)) + beta KL(f(x) || f(x_adv)); -> [B].

    There is no hard label, so label smoothing has nothing to smooth.
    """
    logits, temperature = inputs.logits, inputs.config.ltd_temperature
    assert logits.clean is not None and logits.companion is not None
    log_clean = F.log_softmax(logits.clean, dim=1)
    label = F.softmax(logits.companion / temperature, dim=1)
    kl = kl_divergence(log_clean, F.log_softmax(logits.adv, dim=1))
    return -(label * log_clean).sum(1) + beta_of(inputs) * kl


METHOD = known_method("ltd", loss)
