"""SAT: curriculum-based loss smoothing. Attacks stop at a difficulty that grows over the epochs;
difficulty is the softmax gap, as in P-SAT (Sitawarin, Chakraborty and Wagner 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from lasat_ray.attacks.pgd import Rule, StepState
from lasat_ray.methods import pgd_at
from lasat_ray.methods.base import AttackContext, known_method
from lasat_ray.types import AttackStats


def difficulty(logits: Tensor, y: Tensor) -> Tensor:
    """Probability of the best wrong class minus that of the true one, in [-1, 1]; [B,N], [B] -> [B]."""
    p = logits.softmax(1)
    true = p.gather(1, y[:, None])[:, 0]
    return p.scatter(1, y[:, None], -1.0).amax(1) - true


class HardEnough(Rule):
    """An image whose difficulty has reached ``most`` stops; at 1 none does; ``y`` [B]."""

    stops = True

    def __init__(self, y: Tensor, most: float):
        self.y, self.most = y, most
        self.taken = torch.zeros_like(y)

    def moves(self, state: StepState) -> Tensor:
        """Return which images step on, [S] bool: those that are still easier than ``most``."""
        go = difficulty(state.logits, self.y[state.rows]) < self.most
        if self.most >= 1:
            go = torch.ones_like(go)
        go = state.allowed(go)
        self.taken[state.rows] += go.long()
        return go

    def stats(self) -> AttackStats:
        """Return ``steps_taken``, int64 [B]: how many steps each image took."""
        return {"steps_taken": self.taken}


def most_at(epoch: int, epochs: int, first: float, end: float | None) -> float:
    """The difficulty allowed in an epoch counted from 0: linear from ``first`` to 1 at epoch ``end``,
    by default half the run."""
    return min(1.0, first + (1 - first) * epoch / (end or max(1.0, epochs / 2)))


def rule(context: AttackContext) -> Rule:
    """The stop of one batch, with its epoch's difficulty."""
    config = context.config
    return HardEnough(
        context.batch.y, most_at(context.epoch, context.epochs, config.sat_start, config.sat_epochs)
    )


METHOD = known_method("sat", pgd_at.loss, rule=rule)
