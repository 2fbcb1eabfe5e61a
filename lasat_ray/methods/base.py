"""What a training method is: a pure per-image loss, and how its adversarial images are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from lasat_ray.attacks.pgd import Rule
from lasat_ray.config import LossConfig
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
class Method:
    """One row of a table: ``loss`` per image and the attack it asks for.

    ``needs_clean``: the loss reads logits of the clean images too. ``attacks``: False for plain
    training, whose "adversarial" images are the clean ones. ``fields``: strategy fields beyond
    the attack's that the loss understands.

    ``rule`` makes the attack's data-dependent rule for one batch; ``limit`` changes the chosen
    strategies before the attack; ``conclude`` turns what the rule noted into what the loss reads
    and may sum over workers. ``companion``: a second net, trained beside the target or frozen,
    that sees the clean or the adversarial images; ``needs_helper``: the target also passes
    x + 2 delta. ``awp_gamma``: weight perturbation where the settings name none. ``grows``: the
    strength rises when validation accuracy allows it. ``prunes``: the target loses weights (HYDRA).
    """

    loss: MethodLoss
    attack_loss: Literal["ce", "kl", "margin", "squared"] = "ce"
    start: Literal["uniform", "normal", "normal-cut", "zero"] = "uniform"
    needs_clean: bool = False
    attacks: bool = True
    fields: tuple[str, ...] = ()
    rule: Callable[[AttackContext], Rule] | None = None
    limit: Callable[[AttackContext], Strategy] | None = None
    conclude: Callable[[AttackStats, AttackContext], AttackStats] | None = None
    companion: Literal["none", "trained", "frozen"] = "none"
    companion_sees: Literal["clean", "adv"] = "clean"
    needs_helper: bool = False
    awp_gamma: float = 0.0
    grows: bool = False
    prunes: bool = False
