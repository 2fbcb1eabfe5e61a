"""What an attack raises, per image: cross-entropy, KL from the clean prediction, C&W margin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasat_ray.config.units import COMPARING
from lasat_ray.types import Batch

Rows = Tensor | slice
"""Which images of a batch: their places [S] int64, or ``slice(None)`` for all of them in order."""
Objective = Callable[[Tensor, Rows], Tensor]
"""(logits [S,N] of the images still moving, rows: which S images of the batch) -> [S]."""
ObjectiveOf = Callable[[nn.Module, Batch], Objective]
"""Makes the objective of a batch [B] whose net is held still."""


@dataclass(frozen=True, slots=True)
class PerImage:
    """An objective that reads tensors [B,...] of the batch: ``loss(logits, *their rows)`` -> [S]."""

    loss: Callable[..., Tensor]
    tensors: tuple[Tensor, ...]

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        """logits [S,N] -> [S]."""
        return self.loss(logits, *(tensor[rows] for tensor in self.tensors))


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits)[y]; [B,N], [B] -> [B]."""
    return F.cross_entropy(logits, y, reduction="none")


def soft_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """-label log softmax(logits), ``label`` a distribution; [B,N], [B,N] -> [B]."""
    return -(label * F.log_softmax(logits, dim=1)).sum(1)


def batch_cross_entropy(logits: Tensor, batch: Batch, rows: Rows = slice(None)) -> Tensor:
    """Cross-entropy of the images ``rows`` of a batch against their labels; where labels are mixed
    (CutMix), the mean by shares; logits [S,N] -> [S]."""
    own = cross_entropy(logits, batch.y[rows])
    if batch.share is None or batch.y_other is None:
        return own
    share = batch.share[rows]
    return share * own + (1 - share) * cross_entropy(logits, batch.y_other[rows])


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) per image from log-probabilities; [B,N], [B,N] -> [B]. Gradient flows into both."""
    return (log_p.exp() * (log_p - log_q)).sum(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """C&W's margin: best wrong logit minus the true one (Carlini and Wagner 2017, f6); [B,N], [B] -> [B]."""
    true = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], float("-inf"))
    return others.amax(1) - true


def squared_error(p: Tensor, q: Tensor) -> Tensor:
    """||p - q||^2 of probabilities (SCORE's attack, Pang et al. 2022); [B,N], [B,N] -> [B]."""
    return ((p - q) ** 2).sum(1)


def mixed(parts: dict[int, Objective], code_B: Tensor) -> Objective:
    """Each image raises its own of the ``parts``, the one whose key stands in ``code_B`` [B] int64.

    All parts read the same logits, so a mixture costs no more passes than its dearest part.
    """

    def objective(logits: Tensor, rows: Rows) -> Tensor:
        chosen = code_B[rows]
        values = [torch.where(chosen == code, part(logits, rows), 0.0) for code, part in parts.items()]
        return torch.stack(values).sum(0)

    return objective


def make_objective(name: str, net: nn.Module, x: Tensor, y: Tensor, clean: Tensor | None = None) -> Objective:
    """The named loss (ce, kl, margin, squared) against x [B,C,H,W], y [B]; ``kl`` and ``squared`` compare
    with the clean prediction: of the logits ``clean`` [B,N], or else of one forward pass more."""
    if name == "ce":
        return PerImage(cross_entropy, (y,))
    if name == "margin":
        return PerImage(margin, (y,))
    if name in COMPARING:
        if clean is None:
            with torch.no_grad():
                clean = net(x)
        if name == "kl":
            return PerImage(_kl_from, (F.log_softmax(clean, dim=1),))
        return PerImage(_squared_from, (F.softmax(clean, dim=1),))
    raise AssertionError(f"attack loss '{name}' passed validation unknown")


def _kl_from(logits: Tensor, log_p: Tensor) -> Tensor:
    return kl_divergence(log_p, F.log_softmax(logits, dim=1))


def _squared_from(logits: Tensor, p: Tensor) -> Tensor:
    return squared_error(F.softmax(logits, dim=1), p)
