"""Nets whose robustness is known, and one that training made so; also for Ray workers, which import them."""

from __future__ import annotations

from functools import cache

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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_classifier("small_cnn", num_classes=10, image_shape=SHAPE)
        train = digits("train")
        x_all, y_all = train.x.float() / 255, train.y
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(80):
            rows = torch.randint(len(y_all), (64,))
            x, y = x_all[rows], y_all[rows]
            delta = (torch.rand_like(x) * 2 - 1).mul_(EPS).requires_grad_(True)
            (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(x + delta), y), delta)
            x_adv = (x + (delta.detach() + EPS * grad.sign()).clamp(-EPS, EPS)).clamp(0, 1)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x_adv), y).backward()
            optimizer.step()
    return net.state_dict()


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
    """Gives nan for bright images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return torch.where(x.mean((1, 2, 3), keepdim=False)[:, None] > 0.35, logits * float("nan"), logits)
