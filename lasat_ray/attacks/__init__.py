"""Attacks for training, the reference attack of the reward, and evaluation: one engine, ``pgd``."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lasat_ray.attacks.ball import BALLS, start
from lasat_ray.attacks.objectives import (
    Objective,
    ObjectiveOf,
    batch_cross_entropy,
    make_objective,
    mixed,
)
from lasat_ray.attacks.pgd import Rule, StepState, pgd
from lasat_ray.attacks.plan import Plan
from lasat_ray.attacks.restarts import worst_restart
from lasat_ray.config.units import ATTACK_LOSSES, COMPARING
from lasat_ray.models import frozen_eval
from lasat_ray.process_group import to_device
from lasat_ray.rng import RandomKey
from lasat_ray.types import Batch, Strategy


def constant_strategy(
    x: Tensor, *, eps: float | Tensor, num_steps: int | Tensor, step_size: float | Tensor
) -> Strategy:
    """The same attack for every image of ``x`` [B,C,H,W], or each image's own numbers [B]; ``eps``,
    ``step_size`` in [0,1] pixels."""
    full = x.new_full((len(x),), 0.0)
    return Strategy(
        eps=full + eps,
        num_steps=full.long() + num_steps,
        step_size=full + step_size,
        common_steps=None if isinstance(num_steps, Tensor) else num_steps,
    )


def attack_batch(
    net: nn.Module,
    batch: Batch,
    strategy: Strategy,
    key: RandomKey,
    *,
    loss: str | ObjectiveOf,
    start_kind: str,
    rule: Rule | None = None,
    bucket: int = 0,
    norm: str = "linf",
) -> Tensor:
    """x_adv [B,C,H,W] for a batch: the net in eval mode, input gradients only, weights untouched.

    This is g(x, a, w) of LAS-AT: ``pgd`` with each image's own ``strategy``. ``start_kind``: see
    ``ball.start``. ``loss`` (ce, kl, margin, squared, or what makes an objective) holds where the strategy
    has no ``attack_loss`` of its own; ``norm`` linf or l2 is that of every budget, step and radius. The host
    waits for the device once, to plan the passes.
    """
    radius = strategy.eps if strategy.start_radius is None else strategy.start_radius
    ball, plan = BALLS[norm], Plan.of(strategy)
    run = partial(pgd, net, bucket=bucket, ball=ball)
    with frozen_eval(net):
        begin = ball.start if start_kind == "uniform" else partial(start, start_kind)
        delta0 = begin(batch.x, radius, batch.index, key)
        objective = strategy_objective(loss, net, batch, strategy, plan)
        x_adv = run(batch.x, strategy, objective, delta0=delta0, rule=rule, steps=plan.num_steps)
        if plan.restarts is None:
            return x_adv
        assert rule is None, "a rule follows one attack of each image"

        def attack(places: Tensor, rows: Tensor, key: RandomKey, objective: Objective) -> Tensor:
            delta0 = begin(batch.x[rows], radius[rows], batch.index[rows], key)
            steps = None if plan.num_steps is None else plan.num_steps[places]
            return run(batch.x[rows], strategy[rows], objective, delta0=delta0, steps=steps)

        return worst_restart(net, objective, x_adv, plan.restarts, key, attack)


def strategy_objective(
    loss: str | ObjectiveOf, net: nn.Module, batch: Batch, strategy: Strategy, plan: Plan
) -> Objective:
    """What each image raises: the loss its strategy names, else ``loss``; ``plan`` of the same strategies."""
    if strategy.attack_loss is None or plan.attack_loss is None:
        return objective_of(loss, net, batch)
    codes, comparing = plan.attack_loss.unique().tolist(), compares(plan.attack_loss).nonzero()[:, 0]
    clean = None
    if len(comparing):
        clean = _clean_logits(net, batch.x, to_device(comparing, batch.x.device))
    parts = {c: objective_of(ATTACK_LOSSES[c], net, batch, clean) for c in codes}
    return mixed(parts, strategy.attack_loss)


def compares(code_B: Tensor) -> Tensor:
    """[B] bool: which of the losses ``code_B`` [B] compare with the clean prediction, a forward pass more."""
    return torch.stack([code_B == ATTACK_LOSSES.index(name) for name in COMPARING]).any(0)


def _clean_logits(net: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
    """What the net says of the images ``rows`` of x [B,C,H,W]; 0 for the others, [B,N]."""
    with torch.no_grad():
        found = net(x[rows])
    return found.new_zeros(len(x), found.shape[1]).index_copy(0, rows, found)


def objective_of(
    loss: str | ObjectiveOf, net: nn.Module, batch: Batch, clean: Tensor | None = None
) -> Objective:
    """The named loss against a batch; cross-entropy of mixed labels (CutMix) by their shares.

    ``clean`` [B,N]: what the net says of the clean images, where that is known.
    """
    if not isinstance(loss, str):
        return loss(net, batch)
    if loss == "ce" and batch.share is not None:
        return lambda logits, rows: batch_cross_entropy(logits, batch, rows)
    return make_objective(loss, net, batch.x, batch.y, clean)


class StillCorrect(Rule):
    """Moves just the images that are still classified correctly; ``y`` [B]. With ``stops`` an image stays
    for good where the net is first wrong, and leaves the batch."""

    def __init__(self, y: Tensor, *, stops: bool = False):
        self.y, self.stops = y, stops

    def moves(self, state: StepState) -> Tensor:
        """[S] bool: the net is still right."""
        return state.logits.argmax(1) == self.y[state.rows]


def worst_of_restarts(
    net: nn.Module,
    batch: Batch,
    strategy: Strategy,
    starts: list[Tensor],
    *,
    only_correct: bool,
    norm: str = "linf",
) -> Tensor:
    """PGD on cross-entropy from each start; per image the perturbation of largest cross-entropy.

    ``only_correct`` moves just the images still classified correctly, as the published LAS-AT
    code does. ``starts``: one delta0 [B,C,H,W] a restart. Ties keep the later restart, as there.
    """
    rule = StillCorrect(batch.y) if only_correct else None
    with frozen_eval(net):
        objective = objective_of("ce", net, batch)
        worst: Tensor | None = None
        for delta0 in starts:
            x_adv = pgd(net, batch.x, strategy, objective, delta0=delta0, rule=rule, ball=BALLS[norm])
            if len(starts) == 1:
                return x_adv
            with torch.no_grad():
                loss_B = batch_cross_entropy(net(x_adv), batch)
            if worst is None:
                worst, worst_loss = x_adv, loss_B
            else:
                better = loss_B >= worst_loss
                worst = torch.where(better[:, None, None, None], x_adv, worst)
                worst_loss = torch.where(better, loss_B, worst_loss)
    assert worst is not None
    return worst
