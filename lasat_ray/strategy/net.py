"""The strategy net p(a | x; theta): a backbone with one categorical head per strategy field."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasat_ray.strategy.space import StrategySpace


class StrategyNet(nn.Module):
    """Sees the clean image; heads are independent given the image (LAS-AT, section 3.1)."""

    def __init__(self, features: nn.Module, feature_dim: int, space: StrategySpace):
        super().__init__()
        self.features = features
        heads = [nn.Linear(feature_dim, size) for size in space.sizes]
        for head in heads:
            # Start uniform: an untrained strategy net is the random-strategy control.
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B,C,H,W] in [0,1] -> log-probabilities per head, [B,V_k] each."""
        hidden = self.features(x)
        return [F.log_softmax(head(hidden.to(head.weight.dtype)), dim=1) for head in self.heads]


def sample(log_probs: list[Tensor], uniform_BK: Tensor) -> Tensor:
    """Invert each head's distribution function at ``uniform_BK`` in [0,1); -> action [B,K] int64."""
    columns = []
    for k, log_p in enumerate(log_probs):
        below = log_p.double().exp().cumsum(1) <= uniform_BK[:, k : k + 1]
        columns.append(below.sum(1).clamp(max=log_p.shape[1] - 1))
    return torch.stack(columns, dim=1)


def log_prob(log_probs: list[Tensor], action_BK: Tensor) -> Tensor:
    """log p(a | x) = sum over heads; [B]."""
    taken = [log_p.gather(1, action_BK[:, k : k + 1])[:, 0] for k, log_p in enumerate(log_probs)]
    return torch.stack(taken).sum(0)


def entropy(log_probs: list[Tensor]) -> Tensor:
    """Entropy of the joint strategy in nats, the sum over heads; [B]."""
    return torch.stack([-(log_p.exp() * log_p).sum(1) for log_p in log_probs]).sum(0)
