"""A net that counts: the cost of an attack in images passed forward and backward."""

from __future__ import annotations

from torch import Tensor, nn


class Counted(nn.Module):
    """``net``, counting every image of every forward pass and of every backward pass from its logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.forward_images = 0
        self.backward_images = 0

    def forward(self, x: Tensor) -> Tensor:
        """Pass x [B,C,H,W] through the net and count the images; returns logits [B,N]."""
        self.forward_images += len(x)
        logits = self.net(x)
        if x.requires_grad and not logits.requires_grad:
            # A net without a path for gradients: gradient attacks meet zeros and the probe says so.
            logits = logits + 0 * x.flatten(1).sum(1, keepdim=True)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, grad: Tensor) -> None:
        self.backward_images += len(grad)
