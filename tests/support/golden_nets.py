"""The tiny net behind the golden vectors (tests/golden), in float64."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TinyNet(nn.Module):
    """3x3 convolution, optional one-group normalization, ReLU, mean over H and W, linear."""

    def __init__(self, width: int, num_classes: int, *, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.GroupNorm(1, width, eps=1e-5) if norm else nn.Identity()
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """x [B,3,H,W] -> logits [B,N]."""
        return self.fc(F.relu(self.norm(self.conv(x))).mean((2, 3)))


def load_tiny(npz: Mapping[str, np.ndarray], prefix: str = "net.") -> TinyNet:
    """The net whose weights are the arrays ``prefix + name``; other arrays are ignored."""
    names = ("conv.weight", "conv.bias", "norm.weight", "norm.bias", "fc.weight", "fc.bias")
    state = {name: torch.tensor(npz[prefix + name]) for name in names if prefix + name in npz}
    num_classes, width = state["fc.weight"].shape
    net = TinyNet(width, num_classes, norm="norm.weight" in state).double()
    net.load_state_dict(state)
    return net
