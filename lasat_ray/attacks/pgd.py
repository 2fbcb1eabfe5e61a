"""Projected gradient ascent with every image's own budget, step count and step size; L-inf by default.

Cost: an image takes part in exactly its own ``num_steps`` forward and backward passes. There are as
many passes as the longest attack has steps, all of one size (give or take one image): a short attack may
start late or pause, so that no pass is left with a few images, which cost more each. With a rule all
start together, since it sees the step's number, and may stop earlier; they too leave the batch, at the
price of one host sync a step. Gradients are taken with respect to the input alone (the caller froze the
net), 2 instead of 3 passes' worth a step. A compiled net wants few batch sizes: with ``bucket`` a pass
is filled up to a multiple of it with images that do not move.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lasat_ray.attacks.ball import LINF, Ball, per_image
from lasat_ray.attacks.objectives import Objective
from lasat_ray.types import AttackStats, Strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class StepState:
    """What a rule sees before a step (counted from 0): S images still in play, ``rows`` [S] their
    places in the batch, ``logits`` [S,N] and ``grad`` at x + ``delta`` [S,C,H,W], before the step."""

    step: int
    rows: Tensor
    logits: Tensor
    grad: Tensor
    delta: Tensor


class Rule:
    """Decides from the data which images take a step; one object an attack, it may keep counters.

    ``stops``: an image once refused never moves again, so that it can leave the batch.
    """

    stops = False

    def moves(self, state: StepState) -> Tensor | None:
        """[S] bool: which images take this step; None means all."""
        return None

    def noise(self, state: StepState) -> Tensor | None:
        """Added to the step before the projection, [S,C,H,W]."""
        return None

    def stats(self) -> AttackStats:
        """What was learned about every image of the batch, [B] each."""
        return {}


def pgd(
    net: nn.Module,
    x: Tensor,
    strategy: Strategy,
    objective: Objective,
    *,
    delta0: Tensor,
    rule: Rule | None = None,
    ball: Ball = LINF,
    bucket: int = 0,
) -> Tensor:
    """Raise ``objective`` in each image's own ball (Madry et al. 2018, per-image as in LAS-AT).

    x [B,C,H,W] in [0,1]; ``delta0`` [B,C,H,W] is used as it is and projected after the first
    step; returns x_adv [B,C,H,W], detached. One host sync, for the step counts.
    """
    delta = delta0.clone()
    eps, size = per_image(strategy.eps, x), per_image(strategy.step_size, x)
    live_B: Tensor | None = None  # what the rule has not stopped
    for step, rows in enumerate(_passes(strategy.num_steps, together=rule is not None)):
        if live_B is not None:
            rows = rows[live_B[rows]]
        if not len(rows):
            break
        wide = _filled(rows, bucket, len(x))
        moved, moves = _step(net, x[wide], delta[wide], rows, objective, size[rows], step, rule, ball)
        delta[rows] = ball.project(moved, x[rows], eps[rows])
        if rule is not None and rule.stops and moves is not None:
            live_B = torch.zeros(len(x), dtype=torch.bool, device=x.device)
            live_B[rows] = moves
    return x + delta


def _step(
    net: nn.Module,
    x: Tensor,
    delta: Tensor,
    rows: Tensor,
    objective: Objective,
    size: Tensor,
    step: int,
    rule: Rule | None,
    ball: Ball,
) -> tuple[Tensor, Tensor | None]:
    """The perturbations after one step, not yet projected, and who was allowed to move.

    ``x``, ``delta`` may hold more images than ``rows`` and ``size``: those behind only fill the batch.
    """
    count, delta = len(rows), delta.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = net(x + delta)[:count]
        (grad,) = torch.autograd.grad(objective(logits, rows).sum(), delta)
    delta, grad = delta.detach()[:count], grad[:count]
    ascent = ball.ascend(grad, size)
    if rule is None:
        return delta + ascent, None
    state = StepState(step=step, rows=rows, logits=logits.detach(), grad=grad, delta=delta)
    moves, noise = rule.moves(state), rule.noise(state)
    if noise is not None:
        ascent = ascent + noise
    return delta + (ascent if moves is None else ascent * per_image(moves, x)), moves


def _filled(rows: Tensor, bucket: int, most: int) -> Tensor:
    """``rows``, the first of them repeated up to a multiple of ``bucket`` or to ``most``."""
    size = min(most, -(-len(rows) // bucket) * bucket) if bucket else len(rows)
    return rows if size == len(rows) else torch.cat([rows, rows[:1].expand(size - len(rows))])


def _passes(num_steps_B: Tensor, *, together: bool) -> list[Tensor]:
    """The images of each pass; every image is in ``num_steps`` of them.

    ``together``: all start with the first pass. Otherwise McNaughton's wrap-around rule (1959): the attacks
    laid end to end are cut into rows as long as the longest, so that no image meets itself in a column;
    a pass is a column.
    """
    if not len(num_steps_B):
        return []
    most, total = torch.stack([num_steps_B.max(), num_steps_B.sum()]).tolist()
    every = torch.arange(len(num_steps_B), device=num_steps_B.device)
    if together:
        return [every[num_steps_B > step] for step in range(most)]
    laid = every.repeat_interleave(num_steps_B.long(), output_size=total)
    return [laid[step::most] for step in range(most)]
