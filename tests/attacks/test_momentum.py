"""Momentum in an attack: each image's own, step by step as MI-FGSM writes it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.attacks import attack_batch
from lasat_ray.config import grid_of
from lasat_ray.models import build_classifier
from lasat_ray.rng import RandomKey
from lasat_ray.types import Strategy
from tests.support.helpers import make_batch, small_config
from tests.support.method_runs import trainer_in

F64 = torch.float64
EPS, STEP = 0.2, 0.05


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_classifier("small_cnn", num_classes=4, image_shape=(1, 8, 8)).double().eval()


def case(momentum, steps=(3, 5, 4, 5)):
    x = torch.rand(4, 1, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(1))
    full = torch.full((4,), 1.0, dtype=F64)
    strategy = Strategy(
        eps=EPS * full, num_steps=torch.tensor(steps), step_size=STEP * full, momentum=momentum
    )
    return make_batch(x, torch.arange(4)), strategy


def attacked(net, batch, strategy, norm="linf"):
    key = RandomKey.of(0, "t")
    return attack_batch(net, batch, strategy, key, loss="ce", start_kind="zero", norm=norm)


def by_hand(net, x, y, steps, momentum):
    delta, gathered = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(steps):
        delta = delta.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(F.cross_entropy(net((x + delta)[None]), y[None]), delta)
        gathered = momentum * gathered + grad / grad.abs().sum()
        delta = (delta.detach() + STEP * gathered.sign()).clamp(-EPS, EPS)
        delta = (x + delta).clamp(0, 1) - x
    return x + delta


def test_every_image_gathers_with_its_own_momentum(net):
    momentum = torch.tensor([0.0, 0.5, 1.0, 0.9], dtype=F64)
    batch, strategy = case(momentum)
    x_adv = attacked(net, batch, strategy)
    for n in range(4):
        wanted = by_hand(net, batch.x[n], batch.y[n], int(strategy.num_steps[n]), float(momentum[n]))
        torch.testing.assert_close(x_adv[n], wanted, rtol=0, atol=1e-12)
    plain = attacked(net, batch, dataclasses.replace(strategy, momentum=None))
    assert torch.equal(plain[0], x_adv[0]) and not torch.equal(plain[2], x_adv[2])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_stay_in_their_balls(net, norm):
    batch, strategy = case(torch.ones(4, dtype=F64))
    delta = (attacked(net, batch, strategy, norm) - batch.x).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert (size <= EPS + 1e-9).all() and (size > 0).all()


def test_the_settings_say_it_for_all_and_a_learned_strategy_for_each(tmp_path):
    assert "momentum" not in grid_of(small_config(strategy="fixed"))
    assert grid_of(small_config(strategy="fixed", attack__momentum=0.9))["momentum"] == (0.9,)
    config = small_config(attack__grid={"num_steps": (1.0, 3.0), "momentum": (0.0, 0.9)}, epochs=1)
    assert trainer_in(tmp_path / "run", config).run()["rounds"] == 3
