"""Projected gradient ascent with every image's own budget, step count and step size; L-inf by default.

Cost: an image takes part in exactly its own ``num_steps`` forward and backward passes. There are as
many passes as the longest attack has steps, all of one size (give or take one image): a short attack may
start late or pause, so that no pass is left with a few images, which cost more each. With a rule all
start together, since it sees the step's number, and may stop earlier: on a CPU these too leave the batch;
on a GPU, where the host would have to wait for every step to know them, they stay and stand still.
Gradients are taken with respect to the input alone (the caller froze the net), 2 instead of 3 passes' worth
a step. A compiled net wants few batch sizes: with ``bucket`` a pass is filled up to a multiple of it with
images that do not move.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lasat_ray.attacks.ball import LINF, Ball, per_image
from lasat_ray.attacks.graphed import graphs_of
from lasat_ray.attacks.objectives import Objective, PerImage, Rows
from lasat_ray.config.units import DIRECTIONS
from lasat_ray.process_group import to_device, to_host
from lasat_ray.types import AttackStats, Strategy

_ALONG = DIRECTIONS.index("gradient")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepState:
    """What a rule sees before a step (counted from 0): S images still in play, ``rows`` [S] their
    places in the batch, ``logits`` [S,N] and ``grad`` at x + ``delta`` [S,C,H,W], before the step.

    ``live`` [S] bool: where images that were refused stay in the batch, those that were not.
    """

    step: int
    rows: Tensor
    logits: Tensor
    grad: Tensor
    delta: Tensor
    live: Tensor | None = None

    def allowed(self, moves: Tensor) -> Tensor:
        """``moves`` [S] bool without the images that were refused before; what a rule counts by."""
        return moves if self.live is None else moves & self.live


class Rule:
    """Decides from the data which images take a step; one object an attack, it may keep counters.

    ``stops``: an image once refused never moves again, so that it can leave the batch.
    """

    stops = False

    def moves(self, state: StepState) -> Tensor | None:
        """[S] bool: which images take this step; None means all."""
        return None

    def sizes(self, state: StepState) -> Tensor | None:
        """The length of this step for each image, [S] in [0,1] pixels; None means the strategy's."""
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
    steps: Tensor | None = None,
) -> Tensor:
    """Raise ``objective`` in each image's own ball (Madry et al. 2018, per-image as in LAS-AT).

    x [B,C,H,W] in [0,1]; ``delta0`` [B,C,H,W] is used as it is and projected after the first
    step; returns x_adv [B,C,H,W], detached. One host sync, for the step counts, unless the host knows them:
    all alike by the strategy's ``common_steps``, or each image's by ``steps`` [B] there.
    """
    eps, size = per_image(strategy.eps, x), per_image(strategy.step_size, x)
    passes = _passes(strategy, steps, x.device, together=rule is not None)
    velocity = None if strategy.momentum is None else Velocity(torch.zeros_like(x), strategy.momentum)
    ascent = Ascent(ball, strategy.direction)
    plain = rule is None and velocity is None and strategy.direction is None
    if plain and isinstance(objective, PerImage) and (graphed := graphs_of(net, x)):
        found = graphed.run(net, objective, ball, [x, delta0, eps, size], passes)
        if found is not None:
            return x + found
    delta = delta0.clone()
    live_B: Tensor | None = None  # what the rule has not stopped
    for step, rows in enumerate(passes):
        live: Tensor | None = None
        if live_B is not None and x.is_cuda:
            live = live_B[rows]
        elif live_B is not None:
            rows = live_B.nonzero()[:, 0] if isinstance(rows, slice) else rows[live_B[rows]]
            if not len(rows):
                break
        wide, count = _filled(rows, bucket, len(x))
        seen = Seen(x[wide], delta[wide], rows, count, live)
        moved, moves = _step(net, seen, objective, size[rows], step, rule, ascent, velocity)
        projected = ball.project(moved, x[rows], eps[rows])
        if isinstance(rows, slice):
            delta = projected
        else:
            delta[rows] = projected
        if rule is not None and rule.stops and moves is not None:
            live_B = torch.zeros(len(x), dtype=torch.bool, device=x.device)
            live_B[rows] = moves
    return x + delta


@dataclass(frozen=True, slots=True)
class Velocity:
    """The direction that each image's attack gathers (Dong et al. 2018, MI-FGSM, eq. 6): ``value`` [B,C,H,W],
    of which a step keeps ``momentum`` [B] and adds its gradient, divided by its sum of sizes."""

    value: Tensor
    momentum: Tensor

    def gather(self, grad: Tensor, rows: Rows) -> Tensor:
        """The directions of the S images after their gradients [S,C,H,W]."""
        size = grad.flatten(1).abs().sum(1).clamp(min=torch.finfo(grad.dtype).tiny)
        kept = per_image(self.momentum[rows], grad) * self.value[rows]
        self.value[rows] = kept + grad / per_image(size, grad)
        return self.value[rows]


@dataclass(frozen=True, slots=True)
class Ascent:
    """Where a step goes: as the ``ball`` says, or, where ``direction`` [B] (places in ``DIRECTIONS``) says
    so, along the gradient, its root mean square brought to 1 in each channel (FGM, Xu et al. 2022, A2)."""

    ball: Ball
    direction: Tensor | None

    def __call__(self, grad: Tensor, size: Tensor, rows: Rows) -> Tensor:
        """The moves of the S images ``rows``, whose gradients are [S,C,H,W] and steps [S,1,1,1]."""
        move = self.ball.ascend(grad, size)
        if self.direction is None:
            return move
        square = grad.flatten(2).pow(2).mean(2).sqrt().clamp(min=torch.finfo(grad.dtype).tiny)
        along = size * grad / square.view(*square.shape, *[1] * (grad.dim() - 2))
        return torch.where(per_image(self.direction[rows] == _ALONG, grad), along, move)


@dataclass(frozen=True, slots=True)
class Seen:
    """The images of one pass: ``x`` and ``delta`` [M,C,H,W] hold those of ``rows``, ``count`` in number, and
    behind them others that only fill the batch; ``live`` [M] as in ``StepState``."""

    x: Tensor
    delta: Tensor
    rows: Rows
    count: int
    live: Tensor | None


def _step(
    net: nn.Module,
    seen: Seen,
    objective: Objective,
    size: Tensor,
    step: int,
    rule: Rule | None,
    ascend: Ascent,
    velocity: Velocity | None,
) -> tuple[Tensor, Tensor | None]:
    """The perturbations after one step, not yet projected, and who was allowed to move."""
    count, delta = seen.count, seen.delta.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = net(seen.x + delta)
        logits = logits if len(logits) == count else logits[:count]
        loss = objective(logits, seen.rows)
        (grad,) = torch.autograd.grad(loss, delta, torch.ones_like(loss))
    delta, grad = delta.detach()[:count], grad[:count]
    direction = grad if velocity is None else velocity.gather(grad, seen.rows)
    if rule is None:
        return delta + ascend(direction, size, seen.rows), None
    rows = torch.arange(count, device=delta.device) if isinstance(seen.rows, slice) else seen.rows
    state = StepState(step=step, rows=rows, logits=logits.detach(), grad=grad, delta=delta, live=seen.live)
    moves, sizes, noise = rule.moves(state), rule.sizes(state), rule.noise(state)
    ascent = ascend(direction, size if sizes is None else per_image(sizes, delta), seen.rows)
    if moves is not None:
        moves = state.allowed(moves)
    if noise is not None:
        ascent = ascent + noise
    return delta + (ascent if moves is None else ascent * per_image(moves, delta)), moves


def _filled(rows: Rows, bucket: int, most: int) -> tuple[Rows, int]:
    """``rows``, the first of them repeated up to a multiple of ``bucket`` or ``most``; their number."""
    if isinstance(rows, slice):
        return rows, most
    count = len(rows)
    size = min(most, -(-count // bucket) * bucket) if bucket else count
    wide = rows if size == count else torch.cat([rows, rows[:1].expand(size - count)])
    return wide, count


def _passes(strategy: Strategy, steps: Tensor | None, device: torch.device, *, together: bool) -> list[Rows]:
    """The images of each pass; every image is in ``num_steps`` of them.

    ``together``: all start with the first pass. Otherwise McNaughton's wrap-around rule (1959): the attacks
    laid end to end are cut into rows as long as the longest, so that no image meets itself in a column;
    a pass is a column.
    """
    if strategy.common_steps is not None:
        return [slice(None)] * strategy.common_steps if len(strategy.num_steps) else []
    steps_B = to_host(strategy.num_steps) if steps is None else steps
    if not len(steps_B):
        return []
    every, most = torch.arange(len(steps_B)), int(steps_B.max())
    if together:
        parts = [every[steps_B > step] for step in range(most)]
        # One copy to the device for all passes.
        return list(to_device(torch.cat(parts), device).split([len(part) for part in parts])) if parts else []
    laid = to_device(every.repeat_interleave(steps_B.long()), device)
    return [laid[step::most] for step in range(most)]
