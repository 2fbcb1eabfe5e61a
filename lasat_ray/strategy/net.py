"""The strategy net p(a | x; theta): a backbone with one head per strategy field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasat_ray.strategy.space import StrategySpace


class OrdinalHead(nn.Module):
    """A discretized, truncated normal over an option's place in the grid: log p(v) = a t_v + b t_v^2 up
    to a constant, t_v from -1 (first option) to 1 (last). Two outputs however fine the grid is, so that
    neighbouring options learn from one another; a = b = 0 is uniform."""

    def __init__(self, feature_dim: int, size: int):
        super().__init__()
        self.linear = nn.Linear(feature_dim, 2)
        place = torch.linspace(-1, 1, size) if size > 1 else torch.zeros(1)
        self.register_buffer("powers", torch.stack([place, place**2]), persistent=False)
        self.powers: Tensor

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits [B,V] of a field's options for features ``hidden`` [B,F]."""
        return self.linear(hidden) @ self.powers

    def start_from(self, logits: Tensor) -> None:
        """Begin, whatever the image, with the nearest distribution to softmax(logits), [V], that there is:
        least squares in log-probability."""
        terms = torch.cat([torch.ones_like(self.powers[:1]), self.powers]).double().cpu()
        found = torch.linalg.lstsq(terms.T, logits.double()[:, None]).solution[1:, 0]
        with torch.no_grad():
            self.linear.bias.copy_(found)


class CategoricalHead(nn.Linear):
    """A logit an option."""

    def start_from(self, logits: Tensor) -> None:
        """Begin, whatever the image, with softmax(logits), [V]."""
        with torch.no_grad():
            self.bias.copy_(logits)


class StrategyNet(nn.Module):
    """Sees the clean image; heads are independent given the image (LAS-AT, section 3.1).

    ``min_exploration`` rho in [0,1): every head's distribution is (1 - rho) p + rho uniform, wherever
    it is read, so that no option's probability falls below rho / V, and logits are held within a
    distance from which they can come back. ``ordinal`` heads replace the categorical ones.
    ``first_logits``: field -> logits [V] that its head starts with; uniform where it is not named.
    """

    def __init__(
        self,
        features: nn.Module,
        feature_dim: int,
        space: StrategySpace,
        *,
        min_exploration: float = 0.0,
        ordinal: bool = False,
        first_logits: Mapping[str, Tensor] = MappingProxyType({}),
    ):
        super().__init__()
        self.features = features
        self.feature_dim = feature_dim
        self.min_exploration = min_exploration
        kind = OrdinalHead if ordinal else CategoricalHead
        heads = [kind(feature_dim, size) for size in space.sizes]
        self.heads = nn.ModuleList(heads)
        for parameter in self.heads.parameters():
            # Start uniform: an untrained strategy net is the random-strategy control.
            nn.init.zeros_(parameter)
        for name, head in zip(space.names, heads, strict=True):
            if name in first_logits:
                head.start_from(first_logits[name])

    def hidden(self, x: Tensor) -> Tensor:
        """x [B,C,H,W] in [0,1] -> features [B,F] in the dtype of the heads."""
        return self.features(x).to(next(self.heads.parameters()).dtype)

    def choose(self, hidden: Tensor) -> list[Tensor]:
        """Features [B,F] -> log-probabilities per head, [B,V_k] each, exploration included."""
        rho = self.min_exploration
        logits = [head(hidden) for head in self.heads]
        if rho:
            logits = [_Held.apply(z, math.log(10 * z.shape[1] / rho)) for z in logits]
        return [explored(F.log_softmax(z, dim=1), rho) for z in logits]

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B,C,H,W] in [0,1] -> log-probabilities per head, [B,V_k] each."""
        return self.choose(self.hidden(x))


class _Held(torch.autograd.Function):
    """Logits no further than ``spread`` below their image's largest. Past that an option's own
    probability is a tenth of what exploration gives it, and its gradient would soon be nothing: a
    policy that saturated would never come back. At the limit gradients that raise an option pass to it;
    those that lower it go to the largest logit, which the limit follows: lowering both changes nothing, so
    they cancel what would raise the largest. Were they dropped instead, nothing would answer that rise: it
    went on at a constant rate for ever, took the features along, and gradients grew with both.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, spread: float) -> Tensor:
        largest, place = logits.max(1, keepdim=True)
        lowest = largest - spread
        ctx.save_for_backward(logits < lowest, place)
        return torch.maximum(logits, lowest)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (held, place), (grad,) = ctx.saved_tensors, grads
        lowers = held & (grad > 0)  # descent on it would lower the logit
        moved = grad.masked_fill(~lowers, 0.0).sum(1, keepdim=True)
        return grad.masked_fill(lowers, 0.0).scatter_add(1, place, moved), None


def explored(log_p: Tensor, rho: float) -> Tensor:
    """log((1 - rho) p + rho / V) of log-probabilities [B,V]."""
    if rho == 0:
        return log_p
    floor = torch.full_like(log_p, math.log(rho / log_p.shape[1]))
    return torch.logaddexp(log_p + math.log1p(-rho), floor)


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


def entropies(log_probs: list[Tensor]) -> list[Tensor]:
    """Entropy of each head in nats, [B] each."""
    return [-(log_p.exp() * log_p).sum(1) for log_p in log_probs]


def entropy(log_probs: list[Tensor]) -> Tensor:
    """Entropy of the joint strategy in nats, the sum over heads; [B]."""
    return torch.stack(entropies(log_probs)).sum(0)


def divergence(log_probs: list[Tensor], others: list[Tensor]) -> Tensor:
    """KL(p || q) of the joint strategies in nats, the sum over heads; [B]."""
    pairs = zip(log_probs, others, strict=True)
    return torch.stack([(log_p.exp() * (log_p - log_q)).sum(1) for log_p, log_q in pairs]).sum(0)
