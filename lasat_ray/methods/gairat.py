"""GAIRAT: images near the decision boundary count more (Zhang et al. 2021, eq. 6).

Nearness is kappa, the number of the attack's steps at whose start the image is still classified
correctly. The weights have mean 1 over the global batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lasat_ray.attacks.pgd import Rule, StepState
from lasat_ray.config import LossConfig
from lasat_ray.methods.base import AttackContext, MethodInputs, known_method
from lasat_ray.methods.losses import smoothed_cross_entropy, smoothing_of
from lasat_ray.methods.schedules import stretched
from lasat_ray.types import AttackStats

PUBLISHED = (60.0, 90.0, 110.0)  # of 120 epochs, counted from 1: when Lambda becomes finite, then drops
DROPS = (0.0, 1.0, 1.5)  # piecewise: subtracted from Lambda at each milestone


class CountCorrect(Rule):
    """Every image takes every step; counts those begun correctly classified; ``y`` [B]."""

    def __init__(self, y: Tensor):
        self.y, self.kappa = y, torch.zeros_like(y)

    def moves(self, state: StepState) -> None:
        """None: all of the S images move."""
        self.kappa[state.rows] += (state.logits.argmax(1) == self.y[state.rows]).long()

    def stats(self) -> AttackStats:
        """Return ``kappa``, int64 [B]: in how many steps each image was still classified correctly."""
        return {"kappa": self.kappa}


def lambda_at(epoch: int, epochs: int, config: LossConfig, milestones: tuple[float, ...]) -> float:
    """Lambda in an epoch counted from 0; infinity means no weighting.

    Before the first milestone it is Lambda_max. Then ``fixed``: Lambda; ``linear``: down from
    Lambda_max; ``piecewise``: Lambda, less 1 and 1.5 after the later milestones (the published
    code's later branches never run: leave the later milestones out to have that).
    """
    top = math.inf if config.gairat_lambda_max is None else config.gairat_lambda_max
    number = epoch + 1
    passed = sum(number >= milestone for milestone in milestones)
    if not passed:
        return top
    if config.gairat_schedule == "linear":
        return top - number / epochs * (top - config.gairat_lambda)
    if config.gairat_schedule == "piecewise":
        return config.gairat_lambda - DROPS[min(passed, len(DROPS)) - 1]
    return config.gairat_lambda


def unnormalized_weight(kind: str, kappa_B: Tensor, num_steps_B: Tensor, lam: float) -> Tensor:
    """Falls with kappa from about 1 to about 0; [B], [B] -> [B]."""
    half = torch.clamp(torch.div(num_steps_B, 2, rounding_mode="floor"), min=1)
    reach = lam + 5 * (half - kappa_B) / half
    if kind == "tanh":
        return torch.sigmoid(2 * reach)  # (tanh + 1) / 2, without the cancellation near 0
    if kind == "sigmoid":
        return torch.sigmoid(reach)
    return (num_steps_B + 1 - kappa_B) / (num_steps_B + 1)


def conclude(stats: AttackStats, context: AttackContext) -> AttackStats:
    """Adds each image's ``weight`` [B], mean 1 over the global batch, once the burn-in is over."""
    milestones = context.config.gairat_milestones or stretched(PUBLISHED, 120, context.epochs)
    if context.epoch + 1 < milestones[0]:
        return stats
    dtype = context.batch.x.dtype
    lam = lambda_at(context.epoch, context.epochs, context.config, milestones)
    kappa, steps = stats["kappa"].to(dtype), context.strategy.num_steps.to(dtype)
    raw = unnormalized_weight(context.config.gairat_weight, kappa, steps, lam)
    total = context.group.sum(raw.sum())
    # Where every weight has underflowed nobody is nearer than others: all count alike.
    weight = torch.where(total > 0, raw * context.batch.global_size / total, torch.ones_like(raw))
    return {**stats, "weight": weight}


def loss(inputs: MethodInputs) -> Tensor:
    """weight CE(f(x_adv), y); plain cross-entropy during the burn-in; -> [B]."""
    plain = smoothed_cross_entropy(inputs.logits.adv, inputs.y, smoothing_of(inputs))
    weight = inputs.stats.get("weight")
    return plain if weight is None else weight * plain


METHOD = known_method("gairat", loss, rule=lambda context: CountCorrect(context.batch.y), conclude=conclude)
