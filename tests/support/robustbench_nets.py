"""RobustBench's nets as formulas of their state dicts, written by hand for the tests: no module of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
"""Of CIFAR-10, as RobustBench writes them."""


def norm(state: State, name: str, x: Tensor) -> Tensor:
    """BatchNorm in evaluation mode, spelled out."""
    mean, var, weight, bias = (
        state[f"{name}.{leaf}"].reshape(1, -1, 1, 1)
        for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def preact(state: State, x: Tensor, *, raw: bool) -> Tensor:
    """PreActResNet-18 of PreActBlock (``raw``: projections see the block's input) or of PreActBlockV2 (they
    see its activation); a ``bn`` before the head where the state has one."""
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            active = norm(state, f"{name}.bn1", x).clamp_min(0)
            skip = x
            if f"{name}.shortcut.0.weight" in state:
                given = x if raw else active
                skip = F.conv2d(given, state[f"{name}.shortcut.0.weight"], stride=stride)
            inner = F.conv2d(active, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = norm(state, f"{name}.bn2", inner).clamp_min(0)
            x = F.conv2d(inner, state[f"{name}.conv2.weight"], padding=1) + skip
    if "bn.weight" in state:
        x = norm(state, "bn", x).clamp_min(0)
    return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


def resnet(state: State, x: Tensor) -> Tensor:
    """ResNet of BasicBlock or Bottleneck: normalized projections of the input, ReLU after the sum."""
    x = norm(state, "bn1", F.conv2d(x, state["conv1.weight"], padding=1)).clamp_min(0)
    names = dict.fromkeys(key.rpartition(".conv1")[0] for key in state if key.endswith(".conv1.weight"))
    for name in names:
        stride = 2 if name.endswith(".0") and not name.startswith("layer1") else 1
        deep = f"{name}.conv3.weight" in state
        skip, inner = x, x
        if f"{name}.shortcut.0.weight" in state:
            skip = F.conv2d(x, state[f"{name}.shortcut.0.weight"], stride=stride)
            skip = norm(state, f"{name}.shortcut.1", skip)
        strides = (1, stride, 1) if deep else (stride, 1)  # a bottleneck strides in its middle
        for number, own in enumerate(strides, 1):
            weight = state[f"{name}.conv{number}.weight"]
            inner = F.conv2d(inner, weight, stride=own, padding=weight.shape[2] // 2)
            inner = norm(state, f"{name}.bn{number}", inner)
            inner = inner.clamp_min(0) if number < len(strides) else inner
        x = (inner + skip).clamp_min(0)
    return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


def wide(state: State, x: Tensor) -> Tensor:
    """WideResNet of TRADES: 1x1 projections of the activated input, ReLU."""
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    names = dict.fromkeys(key.rpartition(".conv1")[0] for key in state if key.endswith(".conv1.weight"))
    for name in names:
        stride = 2 if name.startswith(("block2", "block3")) and name.endswith(".0") else 1
        active, skip = norm(state, f"{name}.bn1", x).clamp_min(0), x
        if f"{name}.convShortcut.weight" in state:
            skip = F.conv2d(active, state[f"{name}.convShortcut.weight"], stride=stride)
        inner = F.conv2d(active, state[f"{name}.conv1.weight"], stride=stride, padding=1)
        inner = norm(state, f"{name}.bn2", inner).clamp_min(0)
        x = F.conv2d(inner, state[f"{name}.conv2.weight"], padding=1) + skip
    x = norm(state, "bn1", x).clamp_min(0).mean((2, 3))
    return x @ state["fc.weight"].T + state["fc.bias"]


def same(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A 3x3 convolution after DeepMind's padding: all around at stride 1, below and right at stride 2."""
    batch, channels, height, width = x.shape
    wide = torch.zeros(batch, channels, height + (2 if stride == 1 else 1), width + (2 if stride == 1 else 1))
    wide = wide.to(x.dtype)
    first = 1 if stride == 1 else 0
    wide[:, :, first : first + height, first : first + width] = x
    return F.conv2d(wide, weight, stride=stride)


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def dm_preact(state: State, x: Tensor) -> Tensor:
    """DMPreActResNet, depth 18, swish: 3x3 projections of the raw input."""
    x = F.conv2d((x - state["mean"]) / state["std"], state["conv_2d.weight"], padding=1)
    for stage in range(4):
        for block in (0, 1):
            name, stride = f"layer_{stage}.{block}", 2 if stage and block == 0 else 1
            skip = x
            if f"{name}.shortcut.weight" in state:
                skip = same(x, state[f"{name}.shortcut.weight"], stride)
            inner = same(
                silu(norm(state, f"{name}.batchnorm_0", x)), state[f"{name}.conv_2d_1.weight"], stride
            )
            inner = silu(norm(state, f"{name}.batchnorm_1", inner))
            x = same(inner, state[f"{name}.conv_2d_2.weight"], 1) + skip
    x = silu(norm(state, "batchnorm", x)).mean((2, 3))
    return x @ state["logits.weight"].T + state["logits.bias"]


def dm_wide(state: State, x: Tensor, act: Callable[[Tensor], Tensor] = silu) -> Tensor:
    """DMWideResNet: 1x1 projections of the activated input."""
    x = F.conv2d((x - state["mean"]) / state["std"], state["init_conv.weight"], padding=1)
    names = dict.fromkeys(key.rpartition(".conv_0")[0] for key in state if key.endswith(".conv_0.weight"))
    for name in names:
        stride = 2 if name.startswith(("layer.1", "layer.2")) and name.endswith("block.0") else 1
        active, skip = act(norm(state, f"{name}.batchnorm_0", x)), x
        if f"{name}.shortcut.weight" in state:
            skip = F.conv2d(active, state[f"{name}.shortcut.weight"], stride=stride)
        inner = same(active, state[f"{name}.conv_0.weight"], stride)
        inner = act(norm(state, f"{name}.batchnorm_1", inner))
        x = same(inner, state[f"{name}.conv_1.weight"], 1) + skip
    x = act(norm(state, "batchnorm", x)).mean((2, 3))
    return x @ state["logits.weight"].T + state["logits.bias"]


class Maker:
    """Random state dicts under the published names, layer by layer; no layer is near the identity."""

    def __init__(self, seed: int = 0) -> None:
        self.state: dict[str, Tensor] = {}
        self._rng = torch.Generator().manual_seed(seed)

    def conv(self, name: str, inside: int, outside: int, size: int = 3) -> None:
        scale = (2 / (inside * size * size)) ** 0.5
        self.state[f"{name}.weight"] = scale * torch.randn(outside, inside, size, size, generator=self._rng)

    def norm(self, name: str, channels: int) -> None:
        def rand() -> Tensor:
            return torch.rand(channels, generator=self._rng)

        self.state |= {f"{name}.weight": rand() + 0.5, f"{name}.bias": rand() - 0.5}
        self.state |= {f"{name}.running_mean": rand() - 0.5, f"{name}.running_var": rand() + 0.5}
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def linear(self, name: str, inside: int, outside: int) -> None:
        self.state[f"{name}.weight"] = torch.randn(outside, inside, generator=self._rng) / inside**0.5
        self.state[f"{name}.bias"] = torch.randn(outside, generator=self._rng)


def preact_state(width: int, *, final: bool, classes: int = 10, channels: int = 3) -> dict[str, Tensor]:
    """Under the keys of PreActResNet; ``final``: bn_before_fc."""
    maker, inside = Maker(), width
    maker.conv("conv1", channels, width)
    for stage in range(4):
        outside = width * 2**stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            maker.norm(f"{name}.bn1", inside)
            maker.conv(f"{name}.conv1", inside, outside)
            maker.norm(f"{name}.bn2", outside)
            maker.conv(f"{name}.conv2", outside, outside)
            if inside != outside:
                maker.conv(f"{name}.shortcut.0", inside, outside, 1)
            inside = outside
    if final:
        maker.norm("bn", inside)
    maker.linear("linear", inside, classes)
    return maker.state


def resnet_state(
    width: int, counts: tuple[int, ...] = (2, 2, 2, 2), *, deep: bool = False, classes: int = 10
) -> dict[str, Tensor]:
    """Under the keys of ResNet; ``deep``: of Bottleneck blocks, else of BasicBlock."""
    maker, inside = Maker(), width
    maker.conv("conv1", 3, width)
    maker.norm("bn1", width)
    for stage, count in enumerate(counts):
        middle = width * 2**stage
        outside = 4 * middle if deep else middle
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            chain = [(inside, middle, 1), (middle, middle, 3), (middle, outside, 1)]
            for number, sides in enumerate(chain if deep else [(inside, middle, 3), (middle, outside, 3)], 1):
                maker.conv(f"{name}.conv{number}", *sides)
                maker.norm(f"{name}.bn{number}", sides[1])
            if inside != outside or (stage and not block):
                maker.conv(f"{name}.shortcut.0", inside, outside, 1)
                maker.norm(f"{name}.shortcut.1", outside)
            inside = outside
    maker.linear("linear", inside, classes)
    return maker.state


def wide_state(depth: int, widen: int, classes: int = 10) -> dict[str, Tensor]:
    """Under the keys of WideResNet, with the copy of its first stage that ``sub_block1`` adds."""
    maker, inside = Maker(), 16
    maker.conv("conv1", 3, 16)
    for stage in (1, 2, 3):
        outside = 16 * widen * 2 ** (stage - 1)
        for block in range((depth - 4) // 6):
            name = f"block{stage}.layer.{block}"
            maker.norm(f"{name}.bn1", inside)
            maker.conv(f"{name}.conv1", inside, outside)
            maker.norm(f"{name}.bn2", outside)
            maker.conv(f"{name}.conv2", outside, outside)
            if inside != outside:
                maker.conv(f"{name}.convShortcut", inside, outside, 1)
            inside = outside
    maker.norm("bn1", inside)
    maker.linear("fc", inside, classes)
    return maker.state


def normalization(channels: int) -> dict[str, Tensor]:
    """mean and std as DeepMind's nets keep them: [C,1,1]."""
    return {
        "mean": torch.tensor(MEAN[:channels]).reshape(-1, 1, 1),
        "std": torch.tensor(STD[:channels]).reshape(-1, 1, 1),
    }


def dm_preact_state(width: int, *, classes: int = 10, channels: int = 3) -> dict[str, Tensor]:
    """Under the keys of DMPreActResNet."""
    maker, inside = Maker(), width
    maker.state |= normalization(channels)
    maker.conv("conv_2d", channels, width)
    for stage in range(4):
        outside = width * 2**stage
        for block in range(2):
            name = f"layer_{stage}.{block}"
            maker.norm(f"{name}.batchnorm_0", inside)
            maker.conv(f"{name}.conv_2d_1", inside, outside)
            maker.norm(f"{name}.batchnorm_1", outside)
            maker.conv(f"{name}.conv_2d_2", outside, outside)
            if inside != outside:
                maker.conv(f"{name}.shortcut", inside, outside)
            inside = outside
    maker.norm("batchnorm", inside)
    maker.linear("logits", inside, classes)
    return maker.state


def dm_wide_state(depth: int, width: int, *, classes: int = 10, channels: int = 3) -> dict[str, Tensor]:
    """Under the keys of DMWideResNet."""
    maker, inside = Maker(), 16
    maker.state |= normalization(channels)
    maker.conv("init_conv", channels, 16)
    for stage in range(3):
        outside = 16 * width * 2**stage
        for block in range((depth - 4) // 6):
            name = f"layer.{stage}.block.{block}"
            maker.norm(f"{name}.batchnorm_0", inside)
            maker.conv(f"{name}.conv_0", inside, outside)
            maker.norm(f"{name}.batchnorm_1", outside)
            maker.conv(f"{name}.conv_1", outside, outside)
            if inside != outside:
                maker.conv(f"{name}.shortcut", inside, outside, 1)
            inside = outside
    maker.norm("batchnorm", inside)
    maker.linear("logits", inside, classes)
    return maker.state
