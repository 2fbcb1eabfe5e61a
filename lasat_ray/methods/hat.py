"""HAT: TRADES with helper examples twice as far out, labelled as a plainly trained net sees the
adversarial image (Rade and Moosavi-Dezfooli 2021, eq. 4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lasat_ray.methods import trades
from lasat_ray.methods.base import MethodInputs, known_method


def loss(inputs: MethodInputs) -> Tensor:
    """CE(x) + beta KL(f(x) || f(x_adv)) + gamma CE(f(x + 2 delta), argmax g(x_adv)); -> [B].

    g is the frozen companion; x + 2 delta may leave the pixel range, as in the authors' code.
    """
    logits = inputs.logits
    assert logits.helper is not None and logits.companion is not None
    label = logits.companion.argmax(1)
    helped = F.cross_entropy(logits.helper, label, reduction="none")
    return trades.loss(inputs) + inputs.config.hat_gamma * helped


METHOD = known_method("hat", loss)
