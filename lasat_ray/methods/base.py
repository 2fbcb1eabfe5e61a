"""What a training method is: a pure per-image loss, and how its adversarial images are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lasat_ray.config import LossConfig
from lasat_ray.types import Logits, Strategy

MethodLoss = Callable[[Logits, Tensor, Strategy, LossConfig], Tensor]
"""(logits, y [B], strategy, settings) -> loss per image [B], differentiable in the logits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One row of a table: ``loss`` per image and the attack it asks for.

    ``needs_clean``: the loss reads logits of the clean images too. ``attacks``: False for plain
    training, whose "adversarial" images are the clean ones. ``fields``: strategy fields beyond
    the attack's that the loss understands.
    """

    loss: MethodLoss
    attack_loss: Literal["ce", "kl", "margin"] = "ce"
    start: Literal["uniform", "normal", "zero"] = "uniform"
    needs_clean: bool = False
    attacks: bool = True
    fields: tuple[str, ...] = ()
