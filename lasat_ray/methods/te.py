"""TE, temporal ensembling: PGD-AT that holds on to what the net said of each clean image in the epochs
before, so that it does not memorize single labels (Dong et al. 2022, "Exploring memorization in
adversarial training"; weight, ramp and attack of the authors' code, ``PGD_TE``)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasat_ray.attacks.objectives import Objective, ObjectiveOf, PerImage, cross_entropy, squared_error
from lasat_ray.config import LossConfig
from lasat_ray.methods.base import AttackContext, MethodInputs, known_method, rows_of_table
from lasat_ray.methods.losses import smoothed_cross_entropy, smoothing_of
from lasat_ray.methods.schedules import stretched
from lasat_ray.models import frozen_eval
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import Batch, Logits

PUBLISHED = (90.0, 150.0)  # of 200 epochs, counted from 1: ensembling begins, its weight is full


def ramp(number: int, start: float, full: float) -> float:
    """Share of the weight in epoch ``number`` (from 1): 0 before ``start``, then exp(-5 (1 - t)^2)."""
    if number < start:
        return 0.0
    left = max(0.0, 1 - (number - start) / (full - start))
    return math.exp(-5 * left**2)


def weight_at(epoch: int, config: LossConfig, epochs: int) -> float:
    """The weight of the ensemble in an epoch (from 0) of a run of ``epochs``; published epochs stretched."""
    start, full = config.te_epochs or stretched(PUBLISHED, 200, epochs)
    return config.te_weight * ramp(epoch + 1, start, full)


def pull(logits: Tensor, ensemble: Tensor, weight: Tensor | float) -> Tensor:
    """weight times the mean over classes of (softmax(logits) - ensemble)^2; [B,N], [B,N] -> [B]."""
    return weight * squared_error(F.softmax(logits, dim=1), ensemble) / logits.shape[1]


@torch.no_grad()
def ensembled(context: AttackContext) -> Tensor | None:
    """The average prediction of every image with the present one, [B,N], eval mode; None before it begins.

    Predictions count less by te_decay from epoch to epoch, and their weights sum to 1.
    """
    config, batch = context.config, context.batch
    if context.net is None or weight_at(context.epoch, config, context.epochs) == 0:
        return None
    with frozen_eval(context.net):
        p = F.softmax(context.net(batch.x), dim=1)
    if "ensemble" not in context.memory:
        return p
    table, times = context.memory["ensemble"], context.memory["times"]
    rows = batch.index.clamp(max=len(table) - 1)
    # An image beyond the table, or with an empty row, has been told nothing yet.
    times_B = torch.where(batch.index < len(table), times[rows], 0)[:, None].to(p.dtype)
    before = 1 - config.te_decay**times_B
    total = config.te_decay * before + (1 - config.te_decay)
    return (config.te_decay * before * table[rows] + (1 - config.te_decay) * p) / total


def loss(inputs: MethodInputs) -> Tensor:
    """CE(f(x_adv), y) + weight mean_j (p_j(x_adv) - ensemble_j)^2; -> [B]."""
    own = smoothed_cross_entropy(inputs.logits.adv, inputs.y, smoothing_of(inputs))
    if inputs.soft_y is None:
        return own
    return own + pull(inputs.logits.adv, inputs.soft_y, weight_at(inputs.epoch, inputs.config, inputs.epochs))


def _raised(logits: Tensor, y: Tensor, ensemble: Tensor, weight_B: Tensor) -> Tensor:
    return cross_entropy(logits, y) + pull(logits, ensemble, weight_B)


def objective(context: AttackContext) -> ObjectiveOf:
    """The attack raises what training lowers."""
    weight = weight_at(context.epoch, context.config, context.epochs)

    def of(net: nn.Module, batch: Batch) -> Objective:
        if batch.soft_y is None:
            return PerImage(cross_entropy, (batch.y,))
        return PerImage(_raised, (batch.y, batch.soft_y, torch.full_like(batch.soft_y[:, 0], weight)))

    return of


class Ensemble:
    """The average prediction of every training image, [R,N], and how often it was told one, [R] int64; rows
    are the images' numbers."""

    def __init__(self, config: LossConfig):
        self.table: Tensor | None = None
        self.times: Tensor | None = None

    def tensors(self, epoch: int) -> dict[str, Tensor]:
        """``ensemble`` [R,N] and ``times`` [R]; nothing before anything was told."""
        if self.table is None or self.times is None:
            return {}
        return {"ensemble": self.table, "times": self.times}

    def learn(self, batch: Batch, logits: Logits, group: ProcessGroup) -> None:
        """Keep the averages [B,N] that this round formed; every worker keeps all of them."""
        if batch.soft_y is None:
            return
        rows = group.gather(batch.index, batch.global_size)
        told = group.gather(batch.soft_y, batch.global_size)
        self._grow(rows_of_table(batch, rows), told)
        assert self.table is not None and self.times is not None
        # Attacks in flight and the loss of this round hold on to the old tables.
        self.table, self.times = self.table.clone(), self.times.clone()
        self.table[rows] = told
        self.times[rows] += 1

    def _grow(self, count: int, like: Tensor) -> None:
        had = 0 if self.table is None else len(self.table)
        if count <= had:
            return
        more = like.new_zeros(count - had, like.shape[1])
        times = torch.zeros(count - had, dtype=torch.int64, device=like.device)
        self.table = more if self.table is None else torch.cat([self.table, more])
        self.times = times if self.times is None else torch.cat([self.times, times])

    def state_dict(self) -> dict[str, Any]:
        """``table`` [R,N] and ``times`` [R], or None."""
        return {"table": self.table, "times": self.times}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned, its tensors on ``device``."""
        self.table, self.times = (
            None if state[name] is None else state[name].to(device) for name in ("table", "times")
        )


METHOD = known_method("te", loss, label=ensembled, objective=objective, memory=Ensemble)
