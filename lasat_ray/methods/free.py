"""Free adversarial training: one backward pass gives the gradient of the weights and that of the images,
and each batch is replayed, so that attacks cost no pass of their own (Shafahi et al. 2019, "Adversarial
training for free!", algorithm 1; what of the noise is kept: the authors' PyTorch code)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lasat_ray.attacks.ball import per_image
from lasat_ray.config import LossConfig
from lasat_ray.methods import pgd_at
from lasat_ray.methods.base import AttackContext, known_method
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import AttackedBatch, Batch, Logits, Strategy


def noise_of(memory: dict[str, Tensor], batch: Batch, strategy: Strategy, group: ProcessGroup) -> Tensor:
    """This round's perturbation [B,C,H,W], not cut by the pixel range: that of the round before, a step
    further along its gradient's sign, within this round's budgets.

    It belongs to a place in the batch, not to an image: a new batch begins with what the one before ended
    with, the very first with nothing.
    """
    if not memory:
        return torch.zeros_like(batch.x)
    first, end = group.shard_bounds(batch.global_size)
    before, ascent = memory["noise"][first:end], memory["ascent"][first:end]
    eps, size = per_image(strategy.eps, batch.x), per_image(strategy.step_size, batch.x)
    return torch.clamp(before + size * ascent, -eps, eps)


def adversary(context: AttackContext) -> Tensor:
    """x + noise, cut to [0,1]; [B,C,H,W]."""
    noise = noise_of(context.memory, context.batch, context.strategy, context.group)
    return torch.clamp(context.batch.x + noise, 0, 1)


class Noise:
    """The perturbation of every place in the global batch and the sign of the loss's gradient in it, each
    [N,C,H,W], N the images of a round."""

    def __init__(self, config: LossConfig):
        self.noise: Tensor | None = None
        self.ascent: Tensor | None = None

    def tensors(self, epoch: int) -> dict[str, Tensor]:
        """``noise`` and ``ascent`` [N,C,H,W]; nothing before the first update."""
        return {} if self.noise is None or self.ascent is None else self.state_dict()

    def learn(self, batch: Batch, logits: Logits, group: ProcessGroup) -> None:
        """Logits tell it nothing."""

    def remember(self, attacked: AttackedBatch, gradient: Tensor | None, group: ProcessGroup) -> None:
        """Keep this round's noise and where it rises; a pixel that was cut has no gradient."""
        assert gradient is not None
        batch = attacked.batch
        noise = noise_of(self.tensors(0), batch, attacked.strategy, group)
        moved = batch.x + noise
        ascent = gradient.sign() * ((moved >= 0) & (moved <= 1))
        both = group.gather(torch.cat([noise, ascent], 1), batch.global_size)
        self.noise, self.ascent = (part.contiguous() for part in both.chunk(2, 1))

    def state_dict(self) -> dict[str, Any]:
        """``noise`` and ``ascent`` [N,C,H,W], or None."""
        return {"noise": self.noise, "ascent": self.ascent}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` returned, its tensors on ``device``."""
        self.noise, self.ascent = (
            None if state[name] is None else state[name].to(device) for name in ("noise", "ascent")
        )


METHOD = known_method("free", pgd_at.loss, adversary=adversary, memory=Noise)
