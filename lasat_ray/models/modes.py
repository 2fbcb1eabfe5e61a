"""How a net is held while others use it: frozen for an attack, split for an optimizer."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.models.private import RUNNING_NORMS, lerp_all

NORMS = (*RUNNING_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""Normalization layers."""


@contextmanager
def eval_mode(*nets: nn.Module | None) -> Iterator[None]:
    """Evaluation mode inside the block; each module's own mode after it."""
    modes = [(module, module.training) for net in nets if net is not None for module in net.modules()]
    try:
        for net in nets:
            if net is not None:
                net.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def frozen_eval(net: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode and no parameter gradients inside the block; all as before after it.

    An attack in the block computes input gradients only and moves no BatchNorm statistics. Every
    module's mode and every parameter's ``requires_grad`` come back one by one, also after an
    exception: a net may be in mixed modes, such as frozen BatchNorm in a training net.
    """
    wants_grad = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    try:
        for parameter, _ in wants_grad:
            parameter.requires_grad_(False)
        with eval_mode(net):
            yield net
    finally:
        for parameter, wanted in wants_grad:
            parameter.requires_grad_(wanted)


def batch_norm_buffers(net: nn.Module) -> list[Tensor]:
    """Running means and variances [C], the very tensors, in module order: what workers average."""
    layers = [module for module in net.modules() if isinstance(module, RUNNING_NORMS)]
    buffers = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var)]
    return [buffer for buffer in buffers if buffer is not None]


def batch_norm_state(net: nn.Module) -> list[Tensor]:
    """All that a forward pass in train mode moves: running statistics and batch counters."""
    layers = [module for module in net.modules() if isinstance(module, RUNNING_NORMS)]
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False)]


def norm_and_bias_parameters(net: nn.Module) -> list[nn.Parameter]:
    """Parameters of normalization layers, and every vector or scalar (biases, layer scales)."""
    in_norms = {
        id(parameter)
        for module in net.modules()
        if isinstance(module, NORMS)
        for parameter in module.parameters(recurse=False)
    }
    return [p for p in net.parameters() if p.ndim <= 1 or id(p) in in_norms]


def parameter_groups(net: nn.Module, weight_decay: float, decay_norms: bool) -> list[dict[str, Any]]:
    """Optimizer groups: one of all parameters, or weights and undecayed norms-and-biases.

    With ``decay_norms`` the one group keeps the order of ``net.parameters()``. Empty groups are
    left out.
    """
    if decay_norms:
        return [{"params": list(net.parameters()), "weight_decay": weight_decay}]
    bare = norm_and_bias_parameters(net)
    bare_ids = {id(parameter) for parameter in bare}
    weights = [parameter for parameter in net.parameters() if id(parameter) not in bare_ids]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": bare, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class FrozenNet(nn.Module):
    """A net that stays in evaluation mode and gives no gradients, whatever is done around it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenNet:
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class FrozenNets(nn.Module):
    """Several frozen nets asked together: x [B,C,H,W] -> logits [B,K,N], a row a net."""

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList([FrozenNet(net) for net in nets])

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in self.nets], 1)


class FollowingNet(FrozenNet):
    """An exponential average of a net that learns, its float buffers included; frozen for everybody else."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(copy.deepcopy(net))

    @torch.no_grad()
    def follow(self, net: nn.Module, decay: float) -> None:
        """Go the way of ``1 - decay`` towards the net as it is now; counters are copied."""
        mine, theirs = list(self.net.state_dict().values()), list(net.state_dict().values())
        pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a.is_floating_point()]
        lerp_all([a for a, _ in pairs], [b for _, b in pairs], 1 - decay)
        for a, b in zip(mine, theirs, strict=True):
            if not a.is_floating_point():
                a.copy_(b)


def dtype_of(net: nn.Module) -> torch.dtype:
    """What images for ``net`` are computed in: float64 where any of its tensors is, else float32."""
    double = any(tensor.dtype == torch.float64 for tensor in net.state_dict().values())
    return torch.float64 if double else torch.float32


def num_parameters(net: nn.Module) -> int:
    """Numbers in all parameters, trained or not; buffers do not count."""
    return sum(parameter.numel() for parameter in net.parameters())
