"""ADR, annealing self-distillation rectification: the label is what the target's own average says of the
clean image, more of it from epoch to epoch, and less where that would name another class (Wu, Wang and
Chen 2024, section 4; schedules and attack of the authors' code)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasat_ray.attacks.objectives import (
    Objective,
    ObjectiveOf,
    PerImage,
    cross_entropy,
    kl_divergence,
    soft_cross_entropy,
)
from lasat_ray.methods.base import AttackContext, MethodInputs, known_method
from lasat_ray.methods.losses import beta_of, smoothed_cross_entropy, smoothing_of
from lasat_ray.types import Batch


def annealed(ends: tuple[float, float], progress: float) -> float:
    """From the first to the second of ``ends`` along half a cosine as ``progress`` goes from 0 to 1."""
    first, last = ends
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def rectified(logits: Tensor, y: Tensor, *, temperature: float, trust: float) -> Tensor:
    """share p + (1 - share) onehot(y), p = softmax(logits / temperature); [B,N], [B] -> [B,N].

    share = trust - (max p - p[y]), cut to [0,1]: the true class stays the likeliest.
    """
    p = F.softmax(logits / temperature, dim=1)
    true = p.gather(1, y[:, None])
    share = (trust - (p.amax(1, keepdim=True) - true)).clamp(0, 1)
    return (share * p).scatter_add(1, y[:, None], 1 - share)


@torch.no_grad()
def label(context: AttackContext) -> Tensor | None:
    """The rectified label of every image of the batch, [B,N]; one pass of the target's average. None where
    that is not at hand."""
    if context.companion is None:
        return None
    config, batch = context.config, context.batch
    return rectified(
        context.companion(batch.x),
        batch.y,
        temperature=annealed(config.adr_temperature, context.progress),
        trust=annealed(config.adr_trust, context.progress),
    )


def against_label(logits: Tensor, inputs: MethodInputs) -> Tensor:
    """Cross-entropy of logits [B,N] against the label that was formed, else the true one; [B]."""
    if inputs.soft_y is not None:
        return soft_cross_entropy(logits, inputs.soft_y)
    return smoothed_cross_entropy(logits, inputs.y, smoothing_of(inputs))


def loss(inputs: MethodInputs) -> Tensor:
    """CE(f(x_adv), label); -> [B]. The attack raises the same."""
    return against_label(inputs.logits.adv, inputs)


def trades_loss(inputs: MethodInputs) -> Tensor:
    """CE(f(x), label) + beta KL(f(x) || f(x_adv)); -> [B]. The attack is that of TRADES."""
    logits = inputs.logits
    assert logits.clean is not None
    kl = kl_divergence(F.log_softmax(logits.clean, dim=1), F.log_softmax(logits.adv, dim=1))
    return against_label(logits.clean, inputs) + beta_of(inputs) * kl


def objective(context: AttackContext) -> ObjectiveOf:
    """Cross-entropy against the label, which stands on the batch."""

    def of(net: nn.Module, batch: Batch) -> Objective:
        if batch.soft_y is None:
            return PerImage(cross_entropy, (batch.y,))
        return PerImage(soft_cross_entropy, (batch.soft_y,))

    return of


METHOD = known_method("adr", loss, label=label, objective=objective)
ADR_TRADES = known_method("adr-trades", trades_loss, label=label)
