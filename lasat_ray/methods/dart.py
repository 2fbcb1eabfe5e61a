"""DART, dynamic adversarial training: an attack ends when it has converged well enough, and what
counts as enough tightens over the epochs (Wang et al. 2019, definition 1 and algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from lasat_ray.attacks.pgd import Rule, StepState
from lasat_ray.methods.base import AttackContext, MethodInputs, known_method
from lasat_ray.methods.losses import smoothed_cross_entropy, smoothing_of
from lasat_ray.methods.schedules import linear_decay
from lasat_ray.types import AttackStats


def fosc(grad: Tensor, eps_B: Tensor, moved: Tensor) -> Tensor:
    """First-order stationary condition ``eps ||g||_1 - <x_adv - anchor, g>``, 0 at a stationary point.

    ``grad``, ``moved`` [B,C,H,W]; ``eps_B`` [B]; -> [B]. It is 0 or more where the anchor is the
    middle of the ball, the clean image.
    """
    return eps_B * grad.flatten(1).abs().sum(1) - (moved * grad).flatten(1).sum(1)


class ConvergedStop(Rule):
    """The first step is always taken; then an image with FOSC <= ``enough`` stops.

    ``eps_B`` [B] in [0,1] pixels; ``from_start``: measure from the random start, as the published code
    does, instead of x.
    """

    stops = True

    def __init__(self, eps_B: Tensor, enough: float, *, from_start: bool):
        self.eps, self.enough, self.from_start = eps_B, enough, from_start
        self.taken = torch.zeros_like(eps_B, dtype=torch.int64)
        self.last = torch.full_like(eps_B, float("nan"))
        self.start: Tensor | None = None

    def moves(self, state: StepState) -> Tensor:
        """[S] bool: not yet converged well enough."""
        rows = state.rows
        if self.start is None:
            # The first look has every image that moves at all; the others are never asked for.
            self.start = state.delta.new_zeros(len(self.eps), *state.delta.shape[1:])
            if self.from_start:
                self.start[rows] = state.delta
        value = fosc(state.grad, self.eps[rows], state.delta - self.start[rows])
        if state.step:
            self.last[rows] = value
        go = torch.ones_like(rows, dtype=torch.bool) if state.step == 0 else value > self.enough
        go = state.allowed(go)
        self.taken[rows] += go.long()
        return go

    def stats(self) -> AttackStats:
        """``steps_taken`` int64 [B]; ``fosc`` [B], the last one measured, 0 where none was."""
        return {"steps_taken": self.taken, "fosc": torch.nan_to_num(self.last)}


def enough_at(epoch: int, epochs: int, top: float, end: float | None) -> float:
    """c_t of an epoch counted from 0: linear from ``top`` to 0 at epoch ``end`` (published: 100 of 120)."""
    return linear_decay(top, end or epochs * 100 / 120, epoch)


def rule(context: AttackContext) -> Rule:
    """The stop of one batch, with its epoch's c_t."""
    config = context.config
    enough = enough_at(context.epoch, context.epochs, config.dart_fosc, config.dart_epochs)
    return ConvergedStop(context.strategy.eps, enough, from_start=config.dart_anchor == "start")


def loss(inputs: MethodInputs) -> Tensor:
    """CE(f(x_adv), y); with dart_self_weight times itself, held constant, after epoch 0; -> [B]."""
    plain = smoothed_cross_entropy(inputs.logits.adv, inputs.y, smoothing_of(inputs))
    if inputs.config.dart_self_weight and inputs.epoch > 0:
        return plain.detach() * plain
    return plain


METHOD = known_method("dart", loss, rule=rule)
