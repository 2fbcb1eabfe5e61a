"""Is the credit right? What leaving groups of images out of an update really does to its outcome.

A diagnosis, no part of learning: groups x (training step + two looks), in a few rounds only.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lasat_ray.config import LossConfig, RewardConfig
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import Batch
from lasat_ray.update.reward import reward_terms
from lasat_ray.update.task import Task, plain_step

GROUPS = 8
"""Groups that the batch is dealt into, by the images' rows in the data set."""


def credit_correlation(
    before: nn.Module,
    task: Task,
    credit_B: Tensor,
    x_ref: Tensor,
    settings: LossConfig,
    config: RewardConfig,
    *,
    lr: float,
    group: ProcessGroup,
    outcome_batch: Batch | None = None,
) -> Tensor:
    """Pearson correlation over groups between the credit given [B], summed over a group, and what
    the group did to the mean of alpha L2 + beta L3; 0-d, the same on every worker.

    ``before``: the net that the update started from. What a group did is the outcome of a plain SGD
    step (rate ``lr``) on all images minus that of the same step without the group's losses.
    0 where either side is constant. ``outcome_batch``: the images of the outcome where they are not the
    round's own; ``x_ref`` [B,C,H,W] are their reference images.
    """
    asked = outcome_batch or task.attacked.batch

    def outcome(weight_B: Tensor) -> Tensor:
        """Mean of alpha L2 + beta L3 over the global batch after a step on the weighted losses."""
        copied = copy.deepcopy(before)
        net = plain_step(copied, task, settings, lr=lr, weight_decay=0.0, group=group, weight_B=weight_B)
        terms = reward_terms(net, asked, x_ref, weight_B)
        return group.sum((config.alpha * terms.l2 + config.beta * terms.l3).sum()) / asked.global_size

    group_B = task.attacked.batch.index % GROUPS
    kept = [torch.ones_like(credit_B)] + [(group_B != g).to(credit_B.dtype) for g in range(GROUPS)]
    outcomes = torch.stack([outcome(weight_B) for weight_B in kept])
    given = group.sum(torch.stack([(credit_B.detach() * (1 - w)).sum() for w in kept[1:]]))
    columns = torch.stack([given.double(), (outcomes[0] - outcomes[1:]).double()])
    return torch.nan_to_num(torch.corrcoef(columns)[0, 1])
