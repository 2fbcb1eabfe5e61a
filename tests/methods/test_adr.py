"""ADR: the label by hand, who reads it, the average that forms it."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lasat_ray.attacks import objective_of
from lasat_ray.config import LossConfig
from lasat_ray.env.build import build_round
from lasat_ray.errors import UsageError
from lasat_ray.methods import METHODS
from lasat_ray.methods.adr import annealed, rectified
from lasat_ray.models import FollowingNet
from lasat_ray.process_group import ProcessGroup
from lasat_ray.training.round import play_round
from lasat_ray.validation import check
from tests.support.helpers import (
    CPU,
    Counted,
    changed,
    close,
    inputs_of,
    make_batch,
    make_images,
    small_config,
    strategy_of,
)

F64 = torch.float64
B, N = 6, 5
ALONE = ProcessGroup()


def label_by_hand(logits, y, temperature, trust):
    """Image by image, class by class."""
    out = torch.zeros(len(y), logits.shape[1], dtype=F64)
    for n, true in enumerate(y.tolist()):
        weights = [math.exp(value / temperature) for value in logits[n].tolist()]
        p = [weight / sum(weights) for weight in weights]
        share = min(max(trust - (max(p) - p[true]), 0.0), 1.0)
        for j in range(len(p)):
            out[n, j] = share * p[j] + (1 - share) * (j == true)
    return out


@pytest.mark.parametrize("trust", [0.0, 0.7, 0.95, 1.0])
def test_the_label_is_the_papers(trust):
    logits = 3 * torch.randn(B, N, dtype=F64, generator=torch.Generator().manual_seed(0))
    logits[0] = torch.tensor([0.0, 30.0, 0.0, 0.0, 0.0])  # sure of another class: no share at all
    y = torch.arange(B) % N
    label = rectified(logits, y, temperature=2.0, trust=trust)
    close(label, label_by_hand(logits, y, 2.0, trust))
    close(label.sum(1), torch.ones(B, dtype=F64))
    close(label[0], F.one_hot(y[0], N).to(F64), atol=1e-5)
    assert (label.argmax(1) == y).all() or trust == 1.0


def test_schedules_are_those_of_the_authors_code():
    """Their array of one value a round, first value to last."""
    rounds = 40
    theirs = 0.95 + 0.5 * (0.7 - 0.95) * (1 + np.cos(np.pi * np.arange(rounds) / rounds))
    ours = [annealed((0.7, 0.95), n / rounds) for n in range(rounds)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)


def given(**logits):
    ones, y = torch.ones(B, dtype=F64), torch.arange(B) % N
    soft = torch.rand(B, N, dtype=F64, generator=torch.Generator().manual_seed(1)).softmax(1)
    made = inputs_of(y, strategy_of(ones, ones.long(), ones), LossConfig(trades_beta=2.5), **logits)
    return dataclasses.replace(made, soft_y=soft), soft


def test_losses_and_gradients_by_hand():
    adv, clean = torch.randn(2, B, N, dtype=F64, generator=torch.Generator().manual_seed(2))
    adv.requires_grad_(True), clean.requires_grad_(True)
    inputs, soft = given(adv=adv, clean=clean)
    loss = METHODS["adr"].loss(inputs)
    close(loss, -(soft * adv.log_softmax(1)).sum(1))
    (grad,) = torch.autograd.grad(loss.sum(), adv)
    close(grad, adv.softmax(1) - soft)
    p, q = clean.softmax(1), adv.softmax(1)
    loss = METHODS["adr-trades"].loss(inputs)
    close(loss, -(soft * clean.log_softmax(1)).sum(1) + 2.5 * (p * (p.log() - q.log())).sum(1))
    found = torch.autograd.grad(loss.sum(), (clean, adv))
    surprise = p.log() - q.log()
    close(found[0], p - soft + 2.5 * p * (surprise - (p * surprise).sum(1, keepdim=True)))
    close(found[1], 2.5 * (q - p))


def test_the_attack_raises_cross_entropy_against_the_label():
    logits = torch.randn(B, N, dtype=F64, generator=torch.Generator().manual_seed(3))
    _, soft = given(adv=logits)
    batch = make_batch(torch.rand(B, 1, 1, N, dtype=F64), torch.arange(B) % N)
    batch = dataclasses.replace(batch, soft_y=soft)
    rows = torch.tensor([3, 0])
    raised = METHODS["adr"].raised(None)
    close(
        objective_of(raised, nn.Flatten(), batch)(logits[rows], rows),
        -(soft * logits.log_softmax(1)).sum(1)[rows],
    )
    hard = objective_of("ce", nn.Flatten(), batch)(logits, slice(None))  # what a strategy may choose
    close(hard, F.cross_entropy(logits, batch.y, reduction="none"))


def a_round(**changes):
    config = small_config(**{"precision": "fp64", "batch_size": 16, "model": "small_cnn_bn", **changes})
    return build_round(config, make_images(48), 4, group=ALONE, device=CPU)


@pytest.mark.parametrize("method", ["adr", "adr-trades"])
def test_a_round_forms_its_label_before_it_and_is_paid_by_the_true_ones(method):
    env, _ = a_round(method=method, loss__adr_trust=(0.9, 0.9), reward__lookahead="real")
    average = env.target.companion
    assert isinstance(average, FollowingNet)
    env.target.companion = Counted(average)  # a nn.Module that follows nobody
    x, y = env.batch.x, env.batch.y
    wanted = label_by_hand(average(x), y, 2.5, 0.9)
    played = env.play(torch.zeros(16, 3, dtype=torch.int64))
    close(played.attacked.batch.soft_y, wanted, atol=1e-9)
    assert env.target.companion.forwards == 16  # for attack, loss and reward together
    env.net.eval()
    close(played.rewarded.terms.l3, -F.cross_entropy(env.net(x), y, reduction="none").detach(), atol=1e-9)


def test_the_average_follows_weights_and_statistics():
    env, learner = a_round(method="adr", loss__adr_decay=0.75)
    kept = {name: value.clone() for name, value in env.net.state_dict().items()}
    for _ in range(2):
        play_round(env, learner)
        for name, value in env.net.state_dict().items():
            kept[name] = 0.75 * kept[name] + 0.25 * value if value.is_floating_point() else value.clone()
    for name, value in env.target.companion.net.state_dict().items():
        close(value, kept[name], atol=1e-12) if value.is_floating_point() else None
        assert torch.equal(value, kept[name]) or value.is_floating_point()
    assert not env.target.companion(env.batch.x).requires_grad


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss.label_smoothing": 0.1}, "--loss.label-smoothing: 0.1 has no effect with --method adr"),
        ({"loss.adr_temperature": (1.0, 0.0)}, "--loss.adr-temperature: 0 is out of range"),
        ({"loss.adr_trust": (1.2, 1.0)}, "--loss.adr-trust: 1.2 is out of range"),
        (
            {"data.cutmix": True},
            "--data.cutmix: True mixes labels, but --method adr forms what it trains with",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes, told):
    with pytest.raises(UsageError, match=told):
        check(changed(small_config(method="adr"), changes))
