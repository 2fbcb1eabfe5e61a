"""Projected gradient ascent with every image's own budget, step count and step size; L-inf by default.

Cost: an image takes part in exactly its own ``num_steps`` forward and backward passes. Images are
sorted by step count once, so the ones still moving are always a leading slice: no gather per step.
Gradients are taken with respect to the input alone (the caller froze the net), 2 instead of 3
passes' worth a step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lasat_ray.attacks.ball import LINF, Ball, per_image
from lasat_ray.attacks.objectives import Objective
from lasat_ray.types import Strategy

Moves = Callable[[Tensor, Tensor], Tensor]
"""(logits [S,N], rows [S]) -> [S] bool: which images take this step; the others wait."""


def pgd(
    net: nn.Module,
    x: Tensor,
    strategy: Strategy,
    objective: Objective,
    *,
    delta0: Tensor,
    moves: Moves | None = None,
    ball: Ball = LINF,
) -> Tensor:
    """Raise ``objective`` in each image's own ball (Madry et al. 2018, per-image as in LAS-AT).

    x [B,C,H,W] in [0,1]; ``delta0`` [B,C,H,W] is used as it is and projected after the first
    step; returns x_adv [B,C,H,W], detached. One host sync, for the step counts.
    """
    order, counts = _schedule(strategy.num_steps)
    rows = torch.tensor(order, dtype=torch.int64, device=x.device)
    x_sorted, delta = x[rows], delta0[rows]
    eps, step = per_image(strategy.eps[rows], x), per_image(strategy.step_size[rows], x)
    for count in counts:
        moved = _step(
            net, x_sorted[:count], delta[:count], rows[:count], objective, step[:count], moves, ball
        )
        # In place: the images behind `count` are finished and keep their perturbation.
        delta[:count] = ball.project(moved, x_sorted[:count], eps[:count])
    x_adv = torch.empty_like(x)
    x_adv[rows] = x_sorted + delta
    return x_adv


def _step(
    net: nn.Module,
    x: Tensor,
    delta: Tensor,
    rows: Tensor,
    objective: Objective,
    step: Tensor,
    moves: Moves | None,
    ball: Ball,
) -> Tensor:
    delta = delta.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = net(x + delta)
        (grad,) = torch.autograd.grad(objective(logits, rows).sum(), delta)
    ascent = ball.ascend(grad, step)
    if moves is not None:
        ascent = ascent * per_image(moves(logits.detach(), rows), x)
    return delta.detach() + ascent


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
