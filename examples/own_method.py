"""A training method of your own, in one file: adversarial logit pairing (Kannan et al. 2018).

python -m lasat_ray.train --method examples.own_method:METHOD --strategy learned --epochs 2
"""

from torch import Tensor

from lasat_ray.methods import Method, MethodInputs
from lasat_ray.methods.losses import beta_of, smoothed_cross_entropy


def loss(inputs: MethodInputs) -> Tensor:
    """CE(f(x_adv), y) + beta mean (f(x) - f(x_adv))^2 of logits; one value per image, [B]."""
    logits = inputs.logits
    paired = ((logits.clean - logits.adv) ** 2).mean(1)
    plain = smoothed_cross_entropy(logits.adv, inputs.y, inputs.config.label_smoothing)
    return plain + beta_of(inputs) * paired


METHOD = Method(loss=loss, needs_clean=True, fields=("trades_beta",))
