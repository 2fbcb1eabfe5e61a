"""KD-SWA: PGD-AT that also learns what two frozen nets, one trained plainly and one robustly, say of the
adversarial image; with equally averaged weights (--optim.swa-start) as its authors train it (Chen et al.
2021, "Robust overfitting may be mitigated by properly learned smoothening"; weights of their code)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lasat_ray.attacks.objectives import soft_cross_entropy
from lasat_ray.methods.base import MethodInputs, known_method
from lasat_ray.methods.losses import smoothed_cross_entropy, smoothing_of


def distilled(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 times the cross-entropy of logits / T against softmax(teacher / T); [B,N], [B,N] -> [B]."""
    label = F.softmax(teacher / temperature, dim=1)
    return temperature**2 * soft_cross_entropy(logits / temperature, label)


def loss(inputs: MethodInputs) -> Tensor:
    """(1 - a - b) CE(f(x_adv), y) + a distilled(plain net) + b distilled(robust net), all at x_adv; -> [B].

    a and b are kd_plain and kd_robust; the nets' logits stand in ``companion`` [B,2,N] in that order.
    """
    logits, config = inputs.logits, inputs.config
    assert logits.companion is not None
    plain, robust = logits.companion.unbind(1)
    own = smoothed_cross_entropy(logits.adv, inputs.y, smoothing_of(inputs))
    return (
        (1 - config.kd_plain - config.kd_robust) * own
        + config.kd_plain * distilled(logits.adv, plain, config.kd_temperature)
        + config.kd_robust * distilled(logits.adv, robust, config.kd_temperature)
    )


METHOD = known_method("kd-swa", loss)
