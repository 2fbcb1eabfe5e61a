"""The target net's optimizer, its learning-rate course, and the average of its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.config import OptimConfig
from lasat_ray.models import parameter_groups
from lasat_ray.models.private import lerp_all


def make_optimizer(
    net: nn.Module, config: OptimConfig, factors: Mapping[int, float] | None = None
) -> torch.optim.Optimizer:
    """SGD as every published row uses it, or AdamW (Loshchilov and Hutter 2019).

    ``factors``: ``id`` of a parameter -> multiple of the learning rate, 1 for all others. Groups of
    the optimizer carry theirs as ``factor``; ``set_rate`` reads it.
    """
    groups = parameter_groups(net, config.weight_decay, config.decay_norms)
    if factors:
        groups = [part for group in groups for part in _by_factor(group, factors)]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, config.beta2))
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def _by_factor(group: dict[str, Any], factors: Mapping[int, float]) -> list[dict[str, Any]]:
    """A group of an optimizer, in parts of one factor each."""
    parts: dict[float, list[nn.Parameter]] = {}
    for parameter in group["params"]:
        parts.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
    return [{**group, "params": members, "factor": factor} for factor, members in parts.items()]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step, each group's by its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def step_size(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> Tensor | float:
    """How far a step goes against a gradient of 1, by element or one number for all, in units of the learning
    rate: the factor of its group, and what AdamW divides by, its mean squared gradient held fast."""
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    factor, state = group.get("factor", 1.0), optimizer.state.get(parameter, {})
    if "exp_avg_sq" not in state:
        return factor
    squared = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    return factor / (squared.sqrt() + group["eps"])


def learning_rate(config: OptimConfig, epoch: float, epochs: int) -> float:
    """The rate at a fractional ``epoch`` in [0, epochs): a pure function, so nothing to resume.

    ``one-cycle`` rises linearly to the peak over warmup_epochs (40 % of the run when 0) and falls
    linearly to 0, as the fast-AT recipes do. Like a warm-up it begins at ``warmup_start`` of the
    peak: a first round at a rate of 0 would be wasted. ``restarts``: half cosines one after the other
    (Loshchilov and Hutter 2017).
    """
    if config.schedule == "one-cycle":
        peak = config.warmup_epochs or 0.4 * epochs
        falling = (epochs - epoch) / (epochs - peak)
        return config.lr * max(0.0, min(_risen(config, epoch / peak), falling))
    warm = _risen(config, epoch / config.warmup_epochs) if config.warmup_epochs else 1.0
    if config.schedule == "multistep":
        passed = sum(epoch >= milestone for milestone in config.milestones)
        return config.lr * warm * math.prod(_factors(config)[:passed])
    if config.schedule == "cosine":
        rest = max(epochs - config.warmup_epochs, 1e-9)
        progress = min(1.0, max(0.0, epoch - config.warmup_epochs) / rest)
        return config.lr * warm * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "restarts":
        length = config.restart_epochs
        while epoch >= length:
            epoch, length = epoch - length, length * config.restart_factor
        return config.lr * warm * 0.5 * (1 + math.cos(math.pi * epoch / length))
    return config.lr * warm


def _risen(config: OptimConfig, progress: float) -> float:
    """From ``warmup_start`` to 1 as ``progress`` goes from 0 to 1; 1 beyond."""
    return min(1.0, config.warmup_start + (1 - config.warmup_start) * progress)


def _factors(config: OptimConfig) -> tuple[float, ...]:
    """The factor at each milestone."""
    factors = config.lr_decay
    return factors * len(config.milestones) if len(factors) == 1 else factors


def average_of(net: nn.Module, config: OptimConfig) -> WeightAverage | None:
    """The average of a net's weights that the settings ask for."""
    if config.swa_start is not None:
        return EqualAverage(net)
    return WeightAverage(net, config.ema_decay) if config.ema_decay else None


class WeightAverage:
    """Exponential average of the weights; BatchNorm statistics are copied, not averaged.

    The effective decay grows as (1+d)/(10+d) after d updates, so that early weights are
    forgotten (Gowal et al. 2020, section 4.3, without their warm-up).
    """

    def __init__(self, net: nn.Module, decay: float):
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @property
    def started(self) -> bool:
        """Whether the average is worth evaluating: from the first round on."""
        return True

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        lerp_all(list(self.net.parameters()), [p.detach() for p in net.parameters()], 1 - decay)
        for mine, theirs in zip(self.net.buffers(), net.buffers(), strict=True):
            mine.copy_(theirs)
        self.updates += 1


class EqualAverage(WeightAverage):
    """Stochastic weight averaging: the mean of all nets that were given, equally (Izmailov et al. 2018).

    BatchNorm statistics are averaged with the weights, where the published procedure passes the training
    images once more to measure them.
    """

    def __init__(self, net: nn.Module):
        super().__init__(net, 0.0)

    @property
    def started(self) -> bool:
        """From the first net on."""
        return self.updates > 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take in one more net of the same architecture."""
        self.updates += 1
        pairs = zip(self.net.state_dict().values(), net.state_dict().values(), strict=True)
        for mine, theirs in pairs:
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 / self.updates)
            else:
                mine.copy_(theirs)
