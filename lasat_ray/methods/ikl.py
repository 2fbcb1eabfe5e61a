"""IKL-AT: TRADES whose KL comes apart into a squared error of logit differences, weighted by what the
net says of the class on average, and a cross-entropy against its own clean prediction (Cui et al. 2024,
"Decoupled Kullback-Leibler Divergence Loss", eq. 10; attack and constants of the authors' code)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasat_ray.attacks.objectives import Objective, ObjectiveOf, PerImage
from lasat_ray.config import LossConfig
from lasat_ray.methods.base import AttackContext, MethodInputs, known_method
from lasat_ray.methods.losses import beta_of, smoothed_cross_entropy, smoothing_of
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import Batch, Logits

MEANS = "class_means"


def weighted_differences(clean: Tensor, adv: Tensor, weight: Tensor) -> Tensor:
    """1/4 sum_jk w_j w_k ((o_j - o_k) - (o'_j - o'_k))^2 of logits o, o' [B,N]; [B].

    ``weight`` [B,N] sums to 1 over the classes: the double sum is then twice the variance of o - o' under
    w, and costs N instead of N^2.
    """
    moved = clean - adv
    mean = (weight * moved).sum(1, keepdim=True)
    return (weight * (moved - mean) ** 2).sum(1) / 2


def soft_cross_entropy(clean: Tensor, adv: Tensor) -> Tensor:
    """-softmax(clean) log softmax(adv), the clean side held constant; [B,N], [B,N] -> [B]."""
    return -(F.softmax(clean.detach(), dim=1) * F.log_softmax(adv, dim=1)).sum(1)


def class_weight(means: Tensor | None, y: Tensor, logits: Tensor) -> Tensor:
    """The mean prediction of each image's class, [B,N]; 1/N everywhere before there is one."""
    return torch.full_like(logits, 1 / logits.shape[1]) if means is None else means[y]


def loss(inputs: MethodInputs) -> Tensor:
    """CE(f(x), y) + alpha weighted_differences + beta soft_cross_entropy; -> [B].

    The gradient of the squared error flows into both predictions, that of the cross-entropy into the
    adversarial one alone. beta is ``trades_beta``, an image's own where the strategy sets it.
    """
    logits, config = inputs.logits, inputs.config
    assert logits.clean is not None
    clean = smoothed_cross_entropy(logits.clean, inputs.y, smoothing_of(inputs))
    weight = class_weight(inputs.memory.get(MEANS), inputs.y, logits.clean)
    differences = weighted_differences(logits.clean, logits.adv, weight)
    return (
        clean
        + config.ikl_alpha * differences
        + beta_of(inputs) * soft_cross_entropy(logits.clean, logits.adv)
    )


def raised(logits: Tensor, clean: Tensor, weight: Tensor) -> Tensor:
    """What the attack raises: both parts with weight 1; [S,N] each -> [S]."""
    return weighted_differences(clean, logits, weight) + soft_cross_entropy(clean, logits)


def _raised_by_shares(logits: Tensor, clean: Tensor, weight: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return share * raised(logits, clean, weight) + (1 - share) * raised(logits, clean, other)


def objective(context: AttackContext) -> ObjectiveOf:
    """The attack on the divergence from the clean prediction; one forward pass more. Mixed labels count
    by their shares."""
    means = context.memory.get(MEANS)

    def of(net: nn.Module, batch: Batch) -> Objective:
        with torch.no_grad():
            clean = net(batch.x)
        weight = class_weight(means, batch.y, clean)
        if batch.y_other is None or batch.share is None:
            return PerImage(raised, (clean, weight))
        other = class_weight(means, batch.y_other, clean)
        return PerImage(_raised_by_shares, (clean, weight, other, batch.share))

    return of


class ClassMeans:
    """Mean prediction of every class over the clean images of the epoch before, [N,N]; a class that
    was not seen keeps what it had."""

    def __init__(self, config: LossConfig):
        self.temperature = config.ikl_temperature
        self.epoch = 0
        self.means: Tensor | None = None
        self.sums: Tensor | None = None

    def tensors(self, epoch: int) -> dict[str, Tensor]:
        """``class_means`` [N,N], rows that sum to 1; nothing in the first epoch."""
        if epoch > self.epoch:
            self.epoch = epoch
            self._close()
        return {} if self.means is None else {MEANS: self.means}

    def learn(self, batch: Batch, logits: Logits, group: ProcessGroup) -> None:
        """Add the predictions of one update's clean images, softened, to their classes' sums [N,N]."""
        assert logits.clean is not None
        p = F.softmax(logits.clean / self.temperature, dim=1)
        owner = torch.zeros_like(p).scatter(1, batch.y[:, None], 1.0)  # one_hot waits on a GPU
        if batch.y_other is not None and batch.share is not None:
            other = torch.zeros_like(p).scatter(1, batch.y_other[:, None], 1.0)
            owner = batch.share[:, None] * owner + (1 - batch.share[:, None]) * other
        found = group.sum(owner.T @ p)
        self.sums = found if self.sums is None else self.sums + found

    def _close(self) -> None:
        if self.sums is None:
            return
        total = self.sums.sum(1, keepdim=True)
        before = torch.full_like(self.sums, 1 / len(self.sums)) if self.means is None else self.means
        self.means = torch.where(total > 0, self.sums / total, before)
        self.sums = None

    def state_dict(self) -> dict[str, Any]:
        """``epoch``; ``means`` and ``sums`` [N,N] or None."""
        return {"epoch": self.epoch, "means": self.means, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned, its tensors on ``device``."""
        self.epoch = state["epoch"]
        self.means, self.sums = (
            None if state[name] is None else state[name].to(device) for name in ("means", "sums")
        )


METHOD = known_method("ikl", loss, objective=objective, memory=ClassMeans)
