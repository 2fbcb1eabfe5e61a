"""AWP around a loss: the golden vectors to 1e-10, the lookahead of LAS-AWP by hand, BatchNorm left alone."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.methods import METHODS
from lasat_ray.methods.awp import awp_perturbation, perturbed, perturbed_parameters
from lasat_ray.models import build_classifier
from lasat_ray.process_group import ProcessGroup
from lasat_ray.update.target_step import TargetStep
from tests.methods.test_golden_methods import F64, constant, net_of
from tests.support.helpers import attacked, close, golden, make_batch, small_config


@pytest.fixture
def awp():
    return golden("awp_at")


def test_the_climb_is_the_proxys_difference(awp):
    net, batch = net_of(awp, "w0."), make_batch(awp["x"], awp["y"])
    assert set(perturbed_parameters(net)) == {"conv.weight", "fc.weight"}

    def loss():
        return F.cross_entropy(net(awp["x_adv"]), batch.y, reduction="none")

    perturbation, loss_B = awp_perturbation(net, loss, awp["gamma"], 10, ProcessGroup())
    close(loss_B, loss().detach())
    for name, value in perturbation.items():
        close(value / awp["gamma"], awp[f"diff.{name}"])
    (grad,) = torch.autograd.grad(loss().mean(), net.conv.weight)
    close((net.conv.weight + awp["proxy_lr"] * grad).detach(), awp["proxy.conv.weight"])
    with perturbed(net, perturbation):
        for name, parameter in net.named_parameters():
            close(parameter.detach(), awp[f"perturbed.{name}"])
    for name, parameter in net.named_parameters():
        close(parameter.detach(), awp[f"w0.{name}"], atol=1e-15)


def test_two_steps_with_perturbed_weights(awp):
    """Decay acts at the perturbed weights, which moves the result by 2e-6 only."""
    config = small_config(
        method="at-awp",
        strategy="fixed",
        precision="fp64",
        optim__lr=awp["lr"],
        optim__schedule="constant",
        optim__momentum=awp["momentum"],
        optim__weight_decay=awp["weight_decay"],
    )
    assert METHODS["at-awp"].awp_gamma == awp["gamma"] and METHODS["trades-awp"].awp_gamma == 0.005
    net = net_of(awp, "w0.")
    target = TargetStep(net, config, ProcessGroup(), rounds_per_epoch=3)
    first = target(attacked(make_batch(awp["x"], awp["y"]), awp["x_adv"], constant(10)))
    close(first.loss.mean(), awp["loss_step1"])
    for name, parameter in net.named_parameters():
        close(parameter.grad, awp[f"grad.{name}"])
        close(parameter.detach(), awp[f"restored1.{name}"])
    second = target(attacked(make_batch(awp["x2"], awp["y2"]), awp["x2_adv"], constant(10), round=1))
    close(second.loss.mean(), awp["loss_step2"])
    for name, parameter in net.named_parameters():
        close(parameter.detach(), awp[f"restored2.{name}"])


@pytest.mark.parametrize("warmup", [0, 1])
def test_the_lookahead_of_las_awp_steps_at_perturbed_weights(awp, warmup):
    """Climb on plain cross-entropy, one plain step on the smoothed one with decay, climb undone."""
    config = small_config(
        method="at-awp",
        precision="fp64",
        optim__schedule="constant",
        optim__lr=0.1,
        reward__lookahead="copy",
        reward__copy_label_smoothing=0.3,
        reward__copy_weight_decay=5e-4,
        loss__awp_warmup=warmup,
    )
    net, twin = net_of(awp, "w0."), net_of(awp, "w0.")
    target = TargetStep(net, config, ProcessGroup(), rounds_per_epoch=3)
    given = attacked(make_batch(awp["x"], awp["y"]), awp["x_adv"], constant(10))
    copied = target.stepped_copy(given)
    weights = list(twin.parameters())
    grads = torch.autograd.grad(F.cross_entropy(twin(awp["x_adv"]), awp["y"]), weights)
    perturbation = [
        0.01 * w.norm() / g.norm() * g if w.ndim > 1 and not warmup else 0 * w
        for w, g in zip(weights, grads, strict=True)
    ]
    with torch.no_grad():
        for w, c in zip(weights, perturbation, strict=True):
            w.add_(c)
    smooth = F.cross_entropy(twin(awp["x_adv"]), awp["y"], label_smoothing=0.3 * 5 / 4)
    grads = torch.autograd.grad(smooth, weights)
    for w, c, g, ours in zip(weights, perturbation, grads, copied.parameters(), strict=True):
        close(ours.detach(), (w - 0.1 * (g + 5e-4 * w) - c).detach())
    for name, parameter in net.named_parameters():
        close(parameter.detach(), awp[f"w0.{name}"], atol=0)
    l1, _ = target.attack_strength(given)
    close(l1, F.cross_entropy(net(awp["x_adv"]), awp["y"], reduction="none").detach())


def test_the_climb_moves_no_batch_statistics():
    config = small_config(method="trades-awp", precision="fp64")
    torch.manual_seed(0)
    net = build_classifier("small_cnn_bn", num_classes=4, image_shape=(1, 8, 8), precision="fp64")
    target, twin = TargetStep(net, config, ProcessGroup(), 3), copy.deepcopy(net).train()
    x = torch.rand(6, 1, 8, 8, dtype=F64)
    given = attacked(make_batch(x, torch.arange(6) % 4), (x + 0.1).clamp(0, 1), constant(6))
    perturbation, _ = target._weight_perturbation(target.task(given), twin)
    assert set(perturbation) == set(perturbed_parameters(twin)) and all(
        c.abs().max() > 0 for c in perturbation.values()
    )
    for ours, before in zip(twin.buffers(), net.buffers(), strict=True):
        assert torch.equal(ours, before)
    with perturbed(twin, perturbation):  # statistics come from the two passes at the perturbed weights
        twin(x), twin(given.x_adv)
    target(given)
    for ours, by_hand in zip(net.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, by_hand, rtol=0, atol=1e-12)


@pytest.mark.parametrize("round", [0, 3])
def test_a_chosen_gamma_waits_for_the_end_of_the_warm_up(awp, round):
    """In epoch 0 of a warm-up of one epoch a field of the strategy perturbs nothing; in epoch 1 it does."""

    def weights_after(method, chosen):
        config = small_config(method=method, precision="fp64", loss__awp_warmup=1)
        target = TargetStep(net_of(awp, "w0."), config, ProcessGroup(), rounds_per_epoch=3)
        batch = make_batch(awp["x"], awp["y"])
        strategy = dataclasses.replace(constant(len(batch.y)), awp_gamma=chosen)
        target(attacked(batch, awp["x_adv"], strategy, round=round))
        return torch.cat([p.detach().flatten() for p in target.net.parameters()])

    gamma = torch.full_like(awp["x"][:, 0, 0, 0], 0.05)
    same = torch.equal(weights_after("at-awp", gamma), weights_after("pgd-at", None))
    assert same == (round == 0)
