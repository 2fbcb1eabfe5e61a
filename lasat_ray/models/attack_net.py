"""The net as an attack sees it: eval mode, no weight gradients, BatchNorm folded, perhaps compiled.

Weights are fixed while an attack runs, so everything that depends on them alone is done once a
round (``refresh``), into memory that stays where it is.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from lasat_ray.config import SpeedConfig
from lasat_ray.models.compiled import begin_step, compiled
from lasat_ray.models.folding import Pair, foldable, scales_and_shifts
from lasat_ray.models.private import copy_all

_LARGEST_CHANGE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Of a logit, relative to the largest, that folding may cause; more means another function."""


class AttackNet(nn.Module):
    """A frozen copy of ``net`` in eval mode, brought up to date by ``refresh``.

    x [B,C,H,W] in [0,1] -> logits [B,N], the net's own up to rounding. ``pairs`` names each
    convolution that carries its BatchNorm; none where a net from elsewhere allows none. ``probe``
    [B,C,H,W] are images to find them with.
    """

    def __init__(self, net: nn.Module, speed: SpeedConfig, probe: Tensor) -> None:
        super().__init__()
        self.copy = copy.deepcopy(net).eval().requires_grad_(False)
        self.pairs: list[Pair] = []
        self.speed = speed
        self.graphed: Any = None
        """Where attacks keep the CUDA graphs of their steps on this net."""
        if speed.fold_batch_norm:
            self._fold(probe)
        self.refresh(net)
        self._run = compiled(self.copy, speed)

    def train(self, mode: bool = True) -> AttackNet:
        return self

    def forward(self, x: Tensor) -> Tensor:
        begin_step(self.speed)
        logits = self._run(x)
        # The memory of a CUDA graph's result is written again by the next pass.
        return logits.clone() if self.speed.compile == "cudagraphs" else logits

    def refresh(self, net: nn.Module) -> AttackNet:
        """Take over the present weights of ``net``, of the same architecture; returns self."""
        _fill(self.copy, net, self.pairs)
        return self

    @torch.no_grad()
    def _fold(self, probe: Tensor) -> None:
        merged, pairs = copy.deepcopy(self.copy), foldable(self.copy, probe)
        bf16 = getattr(self.copy, "precision", "") == "bf16"
        for conv_name, norm_name in pairs:
            conv = cast(nn.Conv2d, merged.get_submodule(conv_name))
            # Under autocast every pass would cast these anew.
            dtype = torch.bfloat16 if bf16 else conv.weight.dtype
            conv.weight = nn.Parameter(conv.weight.to(dtype), requires_grad=False)
            conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels), requires_grad=False)
            merged.set_submodule(norm_name, nn.Identity())
        merged.eval()
        _fill(merged, self.copy, pairs)
        before, after = self.copy(probe), merged(probe)
        allowed = _LARGEST_CHANGE[torch.bfloat16 if bf16 else before.dtype] * (1 + before.abs().max())
        if (after - before).abs().max() <= allowed:
            self.copy, self.pairs = merged, pairs


class AttackView:
    """Gives attacks the net to differentiate, with one ``AttackNet`` for all nets of a run."""

    def __init__(self, speed: SpeedConfig) -> None:
        self.speed = speed
        self._attack_net: AttackNet | None = None

    def __call__(self, net: nn.Module, x: Tensor) -> nn.Module:
        """``net`` itself where nothing can be gained, else a frozen copy with its present weights.

        x [B,C,H,W]: images of the run; the copy holds until the next call.
        """
        has_norms = any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
        folds = self.speed.fold_batch_norm and has_norms
        if not folds and self.speed.compile == "none":
            return net
        if self._attack_net is None:
            self._attack_net = AttackNet(net, self.speed, x[:2])
            return self._attack_net
        return self._attack_net.refresh(net)


@torch.no_grad()
def _fill(merged: nn.Module, net: nn.Module, pairs: list[Pair]) -> None:
    """Copy every tensor of ``net`` that ``merged`` has, and the folded ones in their new form."""
    carried = {name for pair in pairs for name in pair}
    ours, theirs = _tensors(merged, carried), _tensors(net, carried)
    copy_all(list(ours.values()), list(theirs.values()))
    if not pairs:
        return
    sources = [cast(nn.Conv2d, net.get_submodule(conv)) for conv, _ in pairs]
    targets = [cast(nn.Conv2d, merged.get_submodule(conv)) for conv, _ in pairs]
    scales, shifts = scales_and_shifts([cast(nn.BatchNorm2d, net.get_submodule(norm)) for _, norm in pairs])
    biases = []
    for source, target, scale, shift in zip(sources, targets, scales, shifts, strict=True):
        torch.mul(source.weight, scale.view(-1, 1, 1, 1), out=target.weight)
        biases.append(shift if source.bias is None else shift + scale * source.bias)
    copy_all([cast(Tensor, target.bias) for target in targets], biases)


def _tensors(net: nn.Module, without: set[str]) -> dict[str, Tensor]:
    """Parameters and buffers by name, but for those of the modules in ``without``."""
    named = [*net.named_parameters(), *net.named_buffers()]
    return {name: tensor for name, tensor in named if name.rpartition(".")[0] not in without}
