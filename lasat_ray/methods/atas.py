"""The step sizes of ATAS: the larger an image's gradient has been, the shorter the step of its attack
(Huang et al. 2022, "Fast adversarial training with adaptive step size"; constants of the authors' code).

Only the step sizes: their attacks also begin where the image's last one ended. See docs/deviations.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lasat_ray.attacks.pgd import Rule, StepState
from lasat_ray.config import LossConfig
from lasat_ray.methods import pgd_at
from lasat_ray.methods.base import AttackContext, known_method, rows_of_table
from lasat_ray.methods.schedules import stretched
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import AttackedBatch, AttackStats, Batch, Logits

FOUND = "squared_norm"


def step_sizes(squared_norm_B: Tensor, largest_B: Tensor, config: LossConfig) -> Tensor:
    """largest / (1 + sqrt(v) / c), within ``atas_range`` of the largest; v, largest [B] -> [B]."""
    low, high = config.atas_range
    return largest_B * (1 / (1 + squared_norm_B.sqrt() / config.atas_c)).clamp(low, high)


class AdaptiveSteps(Rule):
    """Every step of an image's attack is as long as its first gradient says; with the running average of
    squared gradient norms ``before`` [B], or in the warm-up (None) as long as the budget."""

    def __init__(self, context: AttackContext, before: Tensor | None):
        self.context, self.before = context, before
        self.found, self.size = before, context.strategy.eps

    def sizes(self, state: StepState) -> Tensor:
        """[S] in [0,1] pixels."""
        if self.before is not None and state.step == 0:
            config, strategy = self.context.config, self.context.strategy
            # c is in units of the mean loss over the batch, as the authors' code differentiates it.
            norm = state.grad.flatten(1).norm(dim=1) / self.context.batch.global_size
            self.found = self.before.clone()
            kept = config.atas_decay * self.before[state.rows]
            self.found[state.rows] = kept + (1 - config.atas_decay) * norm.to(kept) ** 2
            self.size = step_sizes(self.found, strategy.step_size, config)
        return self.size[state.rows]

    def stats(self) -> AttackStats:
        """``squared_norm`` [B]: each image's average with this attack's; nothing in the warm-up."""
        return {} if self.found is None else {FOUND: self.found}


def warmup(config: LossConfig, epochs: int) -> float:
    """Epochs whose steps are the budget."""
    return stretched((5.0,), 30, epochs)[0] if config.atas_warmup is None else config.atas_warmup


def rule(context: AttackContext) -> Rule:
    """The rule of a batch; an image that was never attacked, or is not a training image, has an average
    of 0."""
    if context.epoch < warmup(context.config, context.epochs):
        return AdaptiveSteps(context, None)
    index, like = context.batch.index, context.strategy.eps
    if FOUND not in context.memory:
        return AdaptiveSteps(context, torch.zeros_like(like))
    table = context.memory[FOUND]
    rows = index.clamp(max=len(table) - 1)
    return AdaptiveSteps(context, torch.where(index < len(table), table[rows], 0).to(like))


class SquaredNorms:
    """The running average of every training image's squared gradient norm, [R]."""

    def __init__(self, config: LossConfig):
        self.table: Tensor | None = None

    def tensors(self, epoch: int) -> dict[str, Tensor]:
        """``squared_norm`` [R]; nothing before the warm-up is over."""
        return {} if self.table is None else {FOUND: self.table}

    def learn(self, batch: Batch, logits: Logits, group: ProcessGroup) -> None:
        """Logits tell it nothing."""

    def remember(self, attacked: AttackedBatch, gradient: Tensor | None, group: ProcessGroup) -> None:
        """Keep the averages [B] of the images that were attacked; every worker keeps all of them."""
        if FOUND not in attacked.stats:
            return
        batch = attacked.batch
        rows = group.gather(batch.index, batch.global_size)
        told = group.gather(attacked.stats[FOUND], batch.global_size)
        before = told.new_zeros(0) if self.table is None else self.table
        missing = rows_of_table(batch, rows) - len(before)
        self.table = torch.cat([before, told.new_zeros(max(missing, 0))])
        self.table[rows] = told

    def state_dict(self) -> dict[str, Any]:
        """``table`` [R], or None."""
        return {"table": self.table}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned, its tensors on ``device``."""
        self.table = None if state["table"] is None else state["table"].to(device)


METHOD = known_method("atas-steps", pgd_at.loss, rule=rule, memory=SquaredNorms)
