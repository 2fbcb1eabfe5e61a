"""FAT: friendly adversarial training. An image is attacked until it has been misclassified for
tau steps more (Zhang et al. 2020, algorithm 1), around three losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from lasat_ray.attacks.pgd import Look, Rule
from lasat_ray.methods import mart, pgd_at, trades
from lasat_ray.methods.base import Scene
from lasat_ray.methods.schedules import passed_after, stretched
from lasat_ray.rng import Stream
from lasat_ray.types import Batch, Notes


class FriendlyStop(Rule):
    """Before each step a misclassified image whose counter is 0 stops; a misclassified image with
    a counter above 0 loses one and moves on. Counters [B] start at ``tau`` steps and never rise.

    ``omega`` (in [0,1] pixels) times a standard normal is added to every step taken, before the projection.
    """

    stops = True

    def __init__(self, batch: Batch, tau: int, omega: float, stream: Stream):
        self.batch, self.omega, self.stream = batch, omega, stream
        self.left = torch.full_like(batch.y, tau)
        self.taken = torch.zeros_like(batch.y)

    def moves(self, look: Look) -> Tensor:
        """[S] bool: not yet misclassified for longer than granted."""
        rows, wrong = look.rows, look.logits.argmax(1) != self.batch.y[look.rows]
        go = ~(wrong & (self.left[rows] == 0))
        self.left[rows] -= (wrong & go).long()
        self.taken[rows] += go.long()
        return go

    def noise(self, look: Look) -> Tensor | None:
        """[S,C,H,W], drawn by the images' rows; None where omega is 0."""
        if not self.omega:
            return None
        stream, shape = self.stream.child("omega", look.step), tuple(look.delta.shape[1:])
        return self.omega * stream.normal(self.batch.index[look.rows], shape, look.delta.dtype)

    def notes(self) -> Notes:
        """``steps_taken`` int64 [B]."""
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

    def __call__(self, scene: Scene) -> Rule:
        config = scene.config
        own = stretched(self.milestones, self.epochs, scene.epochs)
        tau = tau_at(scene.epoch, config.fat_milestones or own)
        omega = self.omega if config.fat_omega is None else config.fat_omega
        return FriendlyStop(scene.batch, tau, omega, scene.stream)


RULE: Callable[[Scene], Rule] = FriendlyRule((50, 90), 120, 0.001)
RULE_TRADES: Callable[[Scene], Rule] = FriendlyRule((30, 50, 70), 85, 0.0)
RULE_MART: Callable[[Scene], Rule] = FriendlyRule((20, 40, 60, 80), 90, 0.0)

METHOD = dataclasses.replace(pgd_at.METHOD, rule=RULE)
FAT_TRADES = dataclasses.replace(trades.METHOD, rule=RULE_TRADES, start="normal-cut")
FAT_MART = dataclasses.replace(mart.METHOD, rule=RULE_MART, start="normal-cut")
