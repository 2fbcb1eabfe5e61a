"""What a training method is: a pure per-image loss, and how its adversarial images are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lasat_ray.attacks.objectives import ObjectiveOf
from lasat_ray.attacks.pgd import Rule
from lasat_ray.config import LossConfig
from lasat_ray.config.traits import TRAITS, MethodTraits
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.types import AttackedBatch, AttackStats, Batch, Logits, Strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodInputs:
    """All that a loss may read: logits, labels ``y`` [B], how each image was attacked, what the
    attack noted, the settings, the epoch, counted from 0, of ``epochs``, what the method formed before the
    attack, ``soft_y`` [B,N], and what its ``memory`` tells by name."""

    logits: Logits
    y: Tensor
    strategy: Strategy
    config: LossConfig
    stats: AttackStats = field(default_factory=dict)
    epoch: int = 0
    epochs: int = 1
    soft_y: Tensor | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackContext:
    """All that decides how a method attacks this round; ``epoch`` counts from 0.

    ``strength``: the curriculum's present strength (CAT's k), part of the checkpoint. ``memory``: what the
    method's memory tells, of any shape; empty where a net is shown without its run. ``progress``: share in
    [0,1) of the run that is over; ``companion``: the second net; ``net``: the target as the attack sees it.
    """

    batch: Batch
    strategy: Strategy
    key: RandomKey
    config: LossConfig
    epoch: int
    epochs: int
    strength: int
    group: ProcessGroup
    memory: dict[str, Tensor] = field(default_factory=dict)
    progress: float = 0.0
    companion: nn.Module | None = None
    net: nn.Module | None = None


class MethodMemory(Protocol):
    """What a method keeps from round to round beside nets: alike on all workers, part of the checkpoint."""

    def tensors(self, epoch: int) -> dict[str, Tensor]:
        """What losses and attacks of an epoch (from 0) may read, by name; of any shape. Asking twice
        changes nothing."""

    def learn(self, batch: Batch, logits: Logits, group: ProcessGroup) -> None:
        """Take in one update's images [B] and what the nets said of them, [B,N] without a graph."""

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned, its tensors on ``device``."""


def rows_of_table(batch: Batch, index: Tensor) -> int:
    """Rows of a table with one for each image, of which ``index`` [N] are told something now; the host waits
    for the device where ``batch`` does not say how many images there are."""
    return int(index.max()) + 1 if batch.num_rows is None else batch.num_rows


class AttackMemory(MethodMemory, Protocol):
    """A memory that also takes in what each update attacked."""

    def remember(self, attacked: AttackedBatch, gradient: Tensor | None, group: ProcessGroup) -> None:
        """``attacked``: this worker's images [B] as the update saw them; ``gradient`` [B,C,H,W] of its loss
        in x_adv, where the method declares ``reuses``."""


MethodLoss = Callable[[MethodInputs], Tensor]
"""inputs -> loss per image [B], differentiable in the logits."""


def _adr_decay(config: LossConfig, epoch: int, epochs: int) -> float:
    return config.adr_decay


@dataclass(frozen=True, kw_only=True, slots=True)
class Method(MethodTraits):
    """One row of a table: ``loss`` per image, the attack it asks for, and its traits.

    ``rule`` makes the attack's data-dependent rule for one batch; ``limit`` changes the chosen
    strategies before the attack; ``conclude`` turns what the rule noted into what the loss reads
    and may sum over workers. ``objective``: what the attack raises where ``attack_loss`` is ``own``;
    ``adversary`` makes the adversarial images [B,C,H,W] itself, without steps; ``memory`` makes what the
    method keeps between rounds (an ``AttackMemory`` is told of attacks too); ``label`` forms what attack and
    loss share of each image, ``soft_y`` [B,N]: a label, an average of predictions. ``follow``: settings,
    epoch (from 0) and epochs -> the decay of a ``companion`` that is the target's ``average``; at 0 it is the
    net itself, which the loss is then not shown beside.
    """

    loss: MethodLoss
    rule: Callable[[AttackContext], Rule] | None = None
    limit: Callable[[AttackContext], Strategy] | None = None
    conclude: Callable[[AttackStats, AttackContext], AttackStats] | None = None
    objective: Callable[[AttackContext], ObjectiveOf] | None = None
    adversary: Callable[[AttackContext], Tensor] | None = None
    memory: Callable[[LossConfig], MethodMemory] | None = None
    label: Callable[[AttackContext], Tensor | None] | None = None
    follow: Callable[[LossConfig, int, int], float] = _adr_decay

    def labelled(self, context: AttackContext) -> AttackContext:
        """The same with what ``label`` forms on its batch."""
        if self.label is None:
            return context
        batch = dataclasses.replace(context.batch, soft_y=self.label(context))
        return dataclasses.replace(context, batch=batch)

    def raised(self, context: AttackContext, chosen: str = "method") -> str | ObjectiveOf:
        """What an attack raises that is not told otherwise by its strategy; ``chosen``: --attack.loss."""
        if chosen != "method":
            return chosen
        return self.objective(context) if self.objective else self.attack_loss


def known_method(name: str, loss: MethodLoss, **hooks: Any) -> Method:
    """One of ours: its traits from the table, its code from its file."""
    return Method(loss=loss, **dataclasses.asdict(TRAITS[name]), **hooks)
