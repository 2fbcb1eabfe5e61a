"""Projected gradient ascent with every image's own budget, step count and step size; L-inf by default.

Cost: an image takes part in exactly its own ``num_steps`` forward and backward passes. Images are
sorted by step count once, so the ones still moving are always a leading slice: no gather per step.
A rule may stop images earlier; they too leave the batch, at the price of one host sync a step.
Gradients are taken with respect to the input alone (the caller froze the net), 2 instead of 3
passes' worth a step. A compiled net wants few batch sizes: with ``bucket`` the batch of a step is
filled up to a multiple of it with images that do not move.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lasat_ray.attacks.ball import LINF, Ball, per_image
from lasat_ray.attacks.objectives import Objective
from lasat_ray.types import Notes, Strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
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

    def moves(self, look: Look) -> Tensor | None:
        """[S] bool: which images take this step; None means all."""
        return None

    def noise(self, look: Look) -> Tensor | None:
        """Added to the step before the projection, [S,C,H,W]."""
        return None

    def notes(self) -> Notes:
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
    order, counts = _schedule(strategy.num_steps)
    rows = torch.tensor(order, dtype=torch.int64, device=x.device)
    x_sorted, delta = x[rows], delta0[rows]
    eps, size = per_image(strategy.eps[rows], x), per_image(strategy.step_size[rows], x)
    live: Tensor | None = None  # places in the sorted order that the rule has not stopped
    for step, count in enumerate(counts):
        here = slice(count) if live is None else live[live < count]
        if not len(rows[here]):
            break
        wide = _filled(here, count if live is None else len(rows[here]), bucket, len(rows))
        moved, moves = _step(
            net, x_sorted[wide], delta[wide], rows[here], objective, size[here], step, rule, ball
        )
        # In place: the images behind `count` are finished and keep their perturbation.
        delta[here] = ball.project(moved, x_sorted[here], eps[here])
        if rule is not None and rule.stops and moves is not None:
            live = torch.arange(len(rows), device=x.device)[here][moves]
    x_adv = torch.empty_like(x)
    x_adv[rows] = x_sorted + delta
    return x_adv


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
    look = Look(step=step, rows=rows, logits=logits.detach(), grad=grad, delta=delta)
    moves, noise = rule.moves(look), rule.noise(look)
    if noise is not None:
        ascent = ascent + noise
    return delta + (ascent if moves is None else ascent * per_image(moves, x)), moves


def _filled(here: slice | Tensor, count: int, bucket: int, most: int) -> slice | Tensor:
    """``here`` (it picks ``count`` of ``most`` images), filled up to a multiple of ``bucket``."""
    size = min(most, -(-count // bucket) * bucket) if bucket else count
    if size == count:
        return here
    if isinstance(here, slice):
        return slice(size)  # the images behind are finished
    return torch.cat([here, here[:1].expand(size - count)])


def _schedule(num_steps_B: Tensor) -> tuple[list[int], list[int]]:
    """The order that puts long attacks first (stable), and how many images move in each step."""
    steps = num_steps_B.tolist()
    order = sorted(range(len(steps)), key=lambda n: -steps[n])
    most = max(steps, default=0)
    ended = [0] * (most + 1)
    for count in steps:
        ended[count] += 1
    counts, moving = [], len(steps) - ended[0]
    for step in range(1, most + 1):
        counts.append(moving)
        moving -= ended[step]
    return order, counts
