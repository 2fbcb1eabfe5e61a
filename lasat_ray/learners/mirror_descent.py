"""Mirror descent on the policy: the exponentiated-gradient step in closed form, then fitted by the net.

A step that maximizes ``eta <A, p> - KL(p || p_old)`` ends, for a categorical head, at p_old exp(eta A) up
to a constant (Tomar et al. 2020, Mirror descent policy optimization; the two parts as in MPO,
Abdolmaleki et al. 2018). It is the natural gradient step of the head's logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lasat_ray.learners.epochs import EpochLearner
from lasat_ray.types import Rollout


def mirror_target(log_p: Tensor, taken_B: Tensor, advantage_B: Tensor, step: float) -> Tensor:
    """log q with q(v) ~ p(v) exp(step A(v)); [B,V], [B], [B] -> [B,V].

    A(v) is known for the option taken only; A / p(v) there and 0 elsewhere estimates the head's
    advantages without bias, the other heads being averaged over.
    """
    taken = taken_B[:, None]
    estimate = advantage_B[:, None] * torch.exp(-log_p.gather(1, taken))
    return F.log_softmax(log_p.scatter_add(1, taken, step * estimate), dim=1)


class MirrorDescent(EpochLearner):
    """Descends KL(q || p_theta) per head: its gradient in the logits, p_theta - q, is bounded however
    large the estimate, and vanishes where the step has been taken."""

    def prepare(self, rollout: Rollout, before: list[Tensor], advantage_B: Tensor) -> None:
        """One target a head, [B,V_k], from the policy that acted and the advantages [B]."""
        step = self.config.mirror_step
        self.targets = [
            mirror_target(log_p, rollout.action[:, k], advantage_B, step) for k, log_p in enumerate(before)
        ]

    def loss(self, log_probs: list[Tensor], rows: Tensor) -> Tensor:
        """KL(q || p_theta) summed over heads and the images ``rows`` [M]; 0-d."""
        pairs = [(target[rows], log_p) for target, log_p in zip(self.targets, log_probs, strict=True)]
        return torch.stack([(q.exp() * (q - log_p)).sum() for q, log_p in pairs]).sum()
