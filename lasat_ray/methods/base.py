"""What a training method is: a pure per-image loss, and how its adversarial images are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lasat_ray.attacks.pgd import Rule
from lasat_ray.config import LossConfig
from lasat_ray.config.traits import TRAITS, MethodTraits
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.types import AttackStats, Batch, Logits, Strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodInputs:
    """All that a loss may read: logits, labels ``y`` [B], how each image was attacked, what the
    attack noted, the settings, and the epoch, counted from 0."""

    logits: Logits
    y: Tensor
    strategy: Strategy
    config: LossConfig
    stats: AttackStats = field(default_factory=dict)
    epoch: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackContext:
    """All that decides how a method attacks this round; ``epoch`` counts from 0.

    ``strength``: the curriculum's present strength (CAT's k), part of the checkpoint.
    """

    batch: Batch
    strategy: Strategy
    key: RandomKey
    config: LossConfig
    epoch: int
    epochs: int
    strength: int
    group: ProcessGroup


MethodLoss = Callable[[MethodInputs], Tensor]
"""inputs -> loss per image [B], differentiable in the logits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method(MethodTraits):
    """One row of a table: ``loss`` per image, the attack it asks for, and its traits.

    ``rule`` makes the attack's data-dependent rule for one batch; ``limit`` changes the chosen
    strategies before the attack; ``conclude`` turns what the rule noted into what the loss reads
    and may sum over workers.
    """

    loss: MethodLoss
    rule: Callable[[AttackContext], Rule] | None = None
    limit: Callable[[AttackContext], Strategy] | None = None
    conclude: Callable[[AttackStats, AttackContext], AttackStats] | None = None


def known_method(name: str, loss: MethodLoss, **hooks: Any) -> Method:
    """One of ours: its traits from the table, its code from its file."""
    return Method(loss=loss, **dataclasses.asdict(TRAITS[name]), **hooks)
