"""Which BatchNorms follow a convolution and can be folded into it, found by watching one pass.

In eval mode BatchNorm is y -> scale * y + shift with fixed numbers, so a convolution before it can
carry both: the same function with one pass over memory less, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Pair = tuple[str, str]
"""Names of a convolution and of the BatchNorm that alone reads its output."""


class _Watch(TorchFunctionMode):
    """Notes who reads each convolution's output; only calls that return tensors count as reading."""

    def __init__(self, convs: Mapping[int, str], norms: Mapping[int, str]) -> None:
        super().__init__()
        self.convs, self.norms = convs, norms
        self.calls: dict[str, int] = {}
        self.readers: dict[str, list[str | None]] = {}
        self._made: dict[int, str] = {}
        self._kept: list[Tensor] = []  # alive, so that no id is used twice

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = _tensors_in((args, kwargs))
        made = _tensors_in(out)
        if not made:
            return out  # a shape or a flag was asked for
        norm = next((self.norms[id(t)] for t in given if id(t) in self.norms), None)
        reader = norm if func is F.batch_norm else None
        if norm is not None:
            self.calls[norm] = self.calls.get(norm, 0) + 1
        for tensor in given:
            if id(tensor) in self._made:
                self.readers.setdefault(self._made[id(tensor)], []).append(reader)
        conv = next((self.convs[id(t)] for t in given if id(t) in self.convs), None)
        if conv is not None:
            self.calls[conv] = self.calls.get(conv, 0) + 1
            self._made[id(made[0])] = conv
            self._kept.append(made[0])
        return out


def _tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    parts = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    )
    return [tensor for part in parts for tensor in _tensors_in(part)]


def foldable(net: nn.Module, probe: Tensor) -> list[Pair]:
    """Pairs (convolution, BatchNorm) that eval mode may merge, in the order of the modules.

    ``probe`` [B,C,H,W] is passed once, in eval mode, without gradients; ``net`` should be a copy
    that nobody counts. A pair needs: plain classes without hooks, each called once, running
    statistics, weights of their own, and no other reader of the convolution's output.
    """
    plain = {name: m for name, m in net.named_modules() if not m._forward_hooks and not m._forward_pre_hooks}
    convs = {id(m.weight): name for name, m in plain.items() if type(m) is nn.Conv2d}
    norms = {
        id(m.running_mean): name
        for name, m in plain.items()
        if type(m) is nn.BatchNorm2d and m.running_mean is not None
    }
    watch = _Watch(convs, norms)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), watch:
        net(probe)
    pairs = []
    for conv in convs.values():
        readers = watch.readers.get(conv, [])
        if len(readers) != 1 or readers[0] is None:
            continue
        if watch.calls[conv] == 1 and watch.calls[readers[0]] == 1:
            pairs.append((conv, readers[0]))
    return pairs


def scales_and_shifts(norms: Sequence[nn.BatchNorm2d]) -> tuple[list[Tensor], list[Tensor]]:
    """The two numbers per channel, [C] each, that every BatchNorm applies in eval mode; all layers' channels
    as one vector, which on a GPU is a few launches instead of several a layer."""
    sizes = [norm.num_features for norm in norms]
    means, variances = (
        torch.cat([norm.get_buffer(f"running_{name}") for norm in norms]) for name in ("mean", "var")
    )
    eps = {norm.eps for norm in norms}
    if len(eps) == 1:
        scale = torch.rsqrt(variances + eps.pop())
    else:
        padded = [norm.get_buffer("running_var") + norm.eps for norm in norms]
        scale = torch.rsqrt(torch.cat(padded))
    if any(norm.weight is not None for norm in norms):
        ones = [
            norm.weight if norm.weight is not None else torch.ones_like(norm.running_var) for norm in norms
        ]
        scale = scale * torch.cat(ones)  # type: ignore[arg-type]
    shift = -means * scale
    if any(norm.bias is not None for norm in norms):
        zeros = [norm.bias if norm.bias is not None else torch.zeros_like(norm.running_var) for norm in norms]
        shift = shift + torch.cat(zeros)  # type: ignore[arg-type]
    return list(scale.split(sizes)), list(shift.split(sizes))
