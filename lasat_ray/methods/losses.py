"""Pieces that several methods' losses share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lasat_ray.methods.base import MethodInputs


def beta_of(inputs: MethodInputs) -> Tensor | float:
    """The weight of the regularizer: each image's own where the strategy has one, [B]."""
    chosen = inputs.strategy.trades_beta
    return inputs.config.trades_beta if chosen is None else chosen


def smoothing_of(inputs: MethodInputs) -> Tensor | float:
    """What is taken from the true class: each image's own share where the strategy has one, [B]."""
    chosen = inputs.strategy.label_smoothing
    return inputs.config.label_smoothing if chosen is None else chosen


def smoothed_cross_entropy(logits: Tensor, y: Tensor, label_smoothing: Tensor | float) -> Tensor:
    """Cross-entropy against 1 - s on the true class and s/(N-1) on each other, s one number or each image's
    own [B]; [B,N], [B] -> [B].

    The published LAS-AT code's convention, whose factor is 1 - s. PyTorch's spreads s over all
    N classes, the true one included: s here is s N/(N-1) there.
    """
    if not isinstance(label_smoothing, Tensor) and label_smoothing == 0.0:
        return F.cross_entropy(logits, y, reduction="none")
    classes = logits.shape[1]
    log_p = F.log_softmax(logits, dim=1)
    true = log_p.gather(1, y[:, None])[:, 0]
    others = log_p.sum(1) - true
    return -(1.0 - label_smoothing) * true - label_smoothing / (classes - 1) * others
