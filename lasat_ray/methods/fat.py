"""FAT: friendly adversarial training. An image is attacked until it has been misclassified for
tau steps more (Zhang et al. 2020, algorithm 1), around three losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from lasat_ray.attacks.pgd import Rule, StepState
from lasat_ray.methods import mart, pgd_at, trades
from lasat_ray.methods.base import AttackContext, known_method
from lasat_ray.methods.schedules import passed_after, stretched
from lasat_ray.rng import RandomKey
from lasat_ray.types import AttackStats, Batch


class FriendlyStop(Rule):
    """Before each step a misclassified image whose counter is 0 stops; a misclassified image with
    a counter above 0 loses one and moves on. Counters [B] start at ``tau`` steps and never rise.

    ``omega`` (in [0,1] pixels) times a standard normal is added to every step taken, before the projection.
    """

    stops = True

    def __init__(self, batch: Batch, tau: int, omega: float, key: RandomKey):
        self.batch, self.omega, self.key = batch, omega, key
        self.left = torch.full_like(batch.y, tau)
        self.taken = torch.zeros_like(batch.y)

    def moves(self, state: StepState) -> Tensor:
        """[S] bool: not yet misclassified for longer than granted."""
        rows, wrong = state.rows, state.logits.argmax(1) != self.batch.y[state.rows]
        go = state.allowed(~(wrong & (self.left[rows] == 0)))
        self.left[rows] -= (wrong & go).long()
        self.taken[rows] += go.long()
        return go

    def noise(self, state: StepState) -> Tensor | None:
        """[S,C,H,W], drawn by the images' rows; None where omega is 0."""
        if not self.omega:
            return None
        key, shape = self.key.fold_in("omega", state.step), tuple(state.delta.shape[1:])
        return self.omega * key.normal(self.batch.index[state.rows], shape, state.delta.dtype)

    def stats(self) -> AttackStats:
        """Return ``steps_taken``, int64 [B]: how many steps each image took."""
        return {"steps_taken": self.taken}


def tau_at(epoch: int, milestones: tuple[float, ...]) -> int:
    """How many misclassified steps are granted in an epoch counted from 0: one more after each
    milestone, an epoch counted from 1."""
    return passed_after(milestones, epoch)


@dataclasses.dataclass(frozen=True, slots=True)
class FriendlyRule:
    """Makes the rule of a batch; the schedule of a variant's own script, of ``epochs`` epochs."""

    milestones: tuple[float, ...]
    epochs: int
    omega: float

    def __call__(self, context: AttackContext) -> Rule:
        config = context.config
        own = stretched(self.milestones, self.epochs, context.epochs)
        tau = tau_at(context.epoch, config.fat_milestones or own)
        omega = self.omega if config.fat_omega is None else config.fat_omega
        return FriendlyStop(context.batch, tau, omega, context.key)


RULE: Callable[[AttackContext], Rule] = FriendlyRule((50, 90), 120, 0.001)
RULE_TRADES: Callable[[AttackContext], Rule] = FriendlyRule((30, 50, 70), 85, 0.0)
RULE_MART: Callable[[AttackContext], Rule] = FriendlyRule((20, 40, 60, 80), 90, 0.0)

METHOD = known_method("fat", pgd_at.loss, rule=RULE)
FAT_TRADES = known_method("fat-trades", trades.loss, rule=RULE_TRADES)
FAT_MART = known_method("fat-mart", mart.loss, rule=RULE_MART)
