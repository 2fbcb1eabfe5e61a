"""Attacks for evaluation on the training engine: one budget for all, restarts, and fooled images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from lasat_ray.attacks import StillCorrect, constant_strategy
from lasat_ray.attacks.ball import BALLS
from lasat_ray.attacks.objectives import Rows, cross_entropy, margin
from lasat_ray.attacks.pgd import pgd
from lasat_ray.rng import RandomKey
from lasat_ray.types import Batch

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [S,N], y [S]) -> [S]."""
LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin}


@dataclass(frozen=True, kw_only=True, slots=True)
class PGDSpec:
    """PGD as an evaluation runs it; ``eps`` and ``step_size`` in [0,1] pixels, norm linf or l2.

    ``stop_early``: an image that the net gets wrong at any step is done and leaves the batch, as in the
    attack of the published LAS-AT code (which it has from Wong et al. 2020); else all steps are taken and the
    last counts. Images fooled in one of ``restarts`` take no part in the next. ``random_start`` False begins
    at the clean image. ``eps``, ``step_size`` and ``num_steps`` may be tensors [B], a number for each image.
    """

    norm: str
    eps: float | Tensor
    step_size: float | Tensor
    num_steps: int | Tensor
    loss: str = "ce"
    restarts: int = 1
    stop_early: bool = False
    random_start: bool = True

    def of(self, rows: Tensor) -> PGDSpec:
        """The attack on some images, by their places [M] in the batch."""
        eps, size = (v[rows] if isinstance(v, Tensor) else v for v in (self.eps, self.step_size))
        steps = self.num_steps[rows] if isinstance(self.num_steps, Tensor) else self.num_steps
        return replace(self, eps=eps, step_size=size, num_steps=steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class PGDResult:
    """``x_adv`` [B,C,H,W]; ``fooled`` [B] bool: the net is wrong there; ``fooled_ever`` [B] bool:
    it was wrong at some step of some restart."""

    x_adv: Tensor
    fooled: Tensor
    fooled_ever: Tensor


def run_pgd(net: nn.Module, batch: Batch, attack: PGDSpec, key: RandomKey) -> PGDResult:
    """Attack a batch, x [B,C,H,W], on a frozen net (see ``frozen_eval``); one extra pass per restart tells
    success."""
    x_adv = batch.x.clone()
    fooled = torch.zeros_like(batch.y, dtype=torch.bool)
    ever = fooled.clone()
    for restart in range(attack.restarts):
        rows = (~fooled).nonzero()[:, 0]
        if not len(rows):
            break
        left = Batch(x=batch.x[rows], y=batch.y[rows], index=batch.index[rows], global_size=len(rows))
        found, seen = _once(net, left, attack.of(rows), key.fold_in("restart", restart) if restart else key)
        with torch.no_grad():
            wrong = net(found).argmax(1) != left.y
        # A later restart replaces an image only where it did what the earlier ones could not.
        better = wrong if restart else torch.ones_like(wrong)
        x_adv[rows[better]] = found[better]
        fooled[rows] = wrong
        ever[rows] |= wrong | seen
    return PGDResult(x_adv=x_adv, fooled=fooled, fooled_ever=ever)


def _once(net: nn.Module, batch: Batch, attack: PGDSpec, key: RandomKey) -> tuple[Tensor, Tensor]:
    """(x_adv, [B] bool: wrong at some step before the last point) of one restart."""
    ball = BALLS[attack.norm]
    strategy = constant_strategy(
        batch.x, eps=attack.eps, num_steps=attack.num_steps, step_size=attack.step_size
    )
    delta0 = torch.zeros_like(batch.x)
    if attack.random_start:
        delta0 = ball.start(batch.x, strategy.eps, batch.index, key)
    seen = torch.zeros_like(batch.y, dtype=torch.bool)
    objective = partial(_watching, LOSSES[attack.loss], batch.y, seen)
    rule = StillCorrect(batch.y, stops=True) if attack.stop_early else None
    return pgd(net, batch.x, strategy, objective, delta0=delta0, rule=rule, ball=ball), seen


def _watching(loss: Loss, y: Tensor, seen: Tensor, logits: Tensor, rows: Rows) -> Tensor:
    """The objective, noting by the way which images the net gets wrong; the ascent is unchanged."""
    seen[rows] |= logits.detach().argmax(1) != y[rows]
    return loss(logits, y[rows])
