"""Nets whose robustness is known, and one that training made so; also for Ray workers, which import them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from lasat_ray.data import Images, load_dataset
from lasat_ray.models import build_classifier

SHAPE = (1, 8, 8)
EPS = 0.15


def digits(split: str = "test", count: int | None = None) -> Images:
    """Real images: a net of random weights would hide the differences between attacks."""
    data = load_dataset("digits", root="", max_train=None, max_test=count, seed=0)
    return data.load_test() if split == "test" else data.train


@cache
def trained_state() -> dict[str, Tensor]:
    """80 updates of FGSM training: about 95 % clean, half of the images robust at EPS."""
    return briefly_trained(80, EPS, seed=0).state_dict()


def trained() -> nn.Module:
    """A normal digits model, fresh from the cached weights."""
    net = build_classifier("small_cnn", num_classes=10, image_shape=SHAPE)
    net.load_state_dict(trained_state())
    return net.eval()


class Linear(nn.Module):
    """Nearest class mean: affine in the pixels."""

    def __init__(self) -> None:
        super().__init__()
        train = digits("train")
        x = train.x.float().flatten(1) / 255
        mean = torch.stack([x[train.y == label].mean(0) for label in range(10)])
        self.register_buffer("weight", 2 * mean)
        self.register_buffer("bias", -(mean**2).sum(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


class Constant(nn.Module):
    """Always says 3, whatever the image; no path for gradients."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.full((len(x),), 3, device=x.device), 10).float()


class Saturated(nn.Module):
    """The trained net with logits so large that the softmax leaves no gradient: a mask, not a defence."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * 1e4


class Rounded(nn.Module):
    """The trained net behind pixels rounded to 16 grays: its gradient is zero everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained()

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x * 16).round() / 16)


class Noisy(nn.Module):
    """The trained net with noise on its input, another one at every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.05 * torch.randn_like(x))


class Probabilities(nn.Module):
    """The trained net behind a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1)


class Broken(nn.Module):
    """Gives nan for bright images. ``seen_by``: a file with the process of every call, a line each."""

    def __init__(self, seen_by: Path) -> None:
        super().__init__()
        self.net = trained()
        self.seen_by = seen_by

    def forward(self, x: Tensor) -> Tensor:
        with self.seen_by.open("a") as file:
            file.write(f"{os.getpid()}\n")
        logits = self.net(x)
        return torch.where(x.mean((1, 2, 3), keepdim=False)[:, None] > 0.35, logits * float("nan"), logits)


class Masked(nn.Module):
    """The trained net as ``kind`` of ``MASKS`` hides its gradients: its figures under PGD mean nothing."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.net, self.kind = trained(), kind

    def forward(self, x: Tensor) -> Tensor:
        return MASKS[self.kind](self.net, x)


def _grid_noise(net: nn.Module, x: Tensor) -> Tensor:
    noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(1)).to(x)
    return net(x.detach()) + 1e-2 * (x * noise).flatten(1)[:, :10]


MASKS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "gradient of the negative image": lambda net, x: net(x.detach()) + 0.01 * net(1 - x),
    "high waves": lambda net, x: net(x) + 3 * torch.sin(3000 * x.flatten(1)[:, :10]),
    "clipped logits": lambda net, x: net(x).clamp(-2, 2),
    "saturated tanh": lambda net, x: torch.tanh(8 * net(x)),
    "rounded logits": lambda net, x: (4 * net(x)).round() / 4 + 0 * x.sum(),
    "two grays": lambda net, x: net((x - 0.5).sign() * 0.5 + 0.5),
    "reversed gradient": lambda net, x: 2 * net(x).detach() - net(x),
    "logits times 100": lambda net, x: 100 * net(x),
    "logits times 1000": lambda net, x: 1000 * net(x),
    "gradient of noise": _grid_noise,
    "eight grays": lambda net, x: net((8 * x).floor() / 8),
}
"""Ways to hide a gradient, each without making the net any more robust."""


def briefly_trained(updates: int, eps: float, seed: int, widths: str = "small_cnn") -> nn.Module:
    """An honest net after so few updates of FGSM training that its attacks still miss images by chance."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_classifier(widths, num_classes=10, image_shape=SHAPE)
        train = digits("train")
        x_all, y_all = train.x.float() / 255, train.y
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(updates):
            rows = torch.randint(len(y_all), (64,))
            x, y = x_all[rows], y_all[rows]
            delta = (torch.rand_like(x) * 2 - 1).mul_(eps).requires_grad_(True)
            (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(x + delta), y), delta)
            x_adv = (x + (delta.detach() + eps * grad.sign()).clamp(-eps, eps)).clamp(0, 1)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x_adv), y).backward()
            optimizer.step()
    return net.eval()
