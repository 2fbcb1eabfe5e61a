"""ReBAT: loss and gradient by hand, when its average begins to lag, what it costs before and after."""

import copy

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.config import LossConfig
from lasat_ray.env.build import build_round
from lasat_ray.errors import UsageError
from lasat_ray.methods import METHODS
from lasat_ray.methods.rebat import decay_at
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.training.round import play_round
from lasat_ray.update.cost import image_passes
from lasat_ray.validation import check
from tests.support.helpers import (
    CPU,
    changed,
    close,
    inputs_of,
    make_images,
    small_config,
    strategy_of,
)
from tests.test_cost_model import B, Passes, make_round

F64 = torch.float64
N = 5


def test_loss_and_gradient_by_hand():
    adv, average = 2 * torch.randn(2, 6, N, dtype=F64, generator=torch.Generator().manual_seed(0))
    adv.requires_grad_(True)
    y, ones = torch.arange(6) % N, torch.ones(6, dtype=F64)
    strategy = strategy_of(ones, ones.long(), ones)
    inputs = inputs_of(y, strategy, LossConfig(rebat_weight=1.7), adv=adv, companion=average)
    loss = METHODS["rebat"].loss(inputs)
    p, q = average.exp() / average.exp().sum(1, keepdim=True), adv.exp() / adv.exp().sum(1, keepdim=True)
    for n in range(6):
        kl = sum(p[n, j] * (p[n, j] / q[n, j]).log() for j in range(N))
        close(loss[n], -q[n, y[n]].log() + 1.7 * kl)
    (grad,) = torch.autograd.grad(loss.sum(), adv)
    hot = torch.eye(N, dtype=F64)[y]
    close(grad, (q - hot + 1.7 * (q - p)).detach())
    alone = METHODS["rebat"].loss(inputs_of(y, strategy, LossConfig(rebat_weight=1.7), adv=adv))
    close(alone, F.cross_entropy(adv, y, reduction="none"))


def test_it_begins_where_the_authors_code_does():
    begins = [decay_at(LossConfig(), epoch, 200) for epoch in (0, 104, 105, 199)]
    assert begins == [0.0, 0.0, 0.999, 0.999]
    assert [decay_at(LossConfig(), epoch, 20) for epoch in (10, 11)] == [0.0, 0.999]
    own = LossConfig(rebat_start=3.0, rebat_decay=0.9)
    assert [decay_at(own, epoch, 200) for epoch in (2, 3)] == [0.0, 0.9]


def a_round(method="rebat", **changes):
    config = small_config(
        **{
            "precision": "fp64",
            "batch_size": 16,
            "model": "small_cnn_bn",
            "method": method,
            "loss__rebat_start": 1.0,
            "loss__rebat_decay": 0.8,
            **changes,
        }
    )
    return build_round(config, make_images(48), 4, group=ProcessGroup(), device=CPU)


def test_until_then_it_is_pgd_at_and_the_average_is_the_net():
    (env, learner), (other, theirs) = a_round(), a_round("pgd-at")
    for _ in range(3):  # the first epoch
        play_round(env, learner), play_round(other, theirs)
    ours, plain = env.net.state_dict(), other.net.state_dict()
    average = env.target.companion.net.state_dict()
    for name, value in plain.items():
        assert torch.equal(ours[name], value) and torch.equal(average[name], value), name


def test_then_it_is_held_near_an_average_that_lags():
    env, learner = a_round()
    for _ in range(3):
        play_round(env, learner)
    kept = copy.deepcopy(env.net.state_dict())
    for _ in range(2):
        average, net, y = copy.deepcopy(env.target.companion), copy.deepcopy(env.net).train(), env.batch.y
        played = env.play(torch.zeros(16, 3, dtype=torch.int64))
        x_adv = played.attacked.x_adv
        with torch.no_grad():
            p, logits = average.net.eval()(x_adv).softmax(1), net(x_adv)
        kl = (p * (p.log() - logits.log_softmax(1))).sum(1)
        close(played.update.loss, F.cross_entropy(logits, y, reduction="none") + kl)
        for name, value in env.net.state_dict().items():
            kept[name] = 0.8 * kept[name] + 0.2 * value if value.is_floating_point() else value.clone()
        for name, value in env.target.companion.net.state_dict().items():
            close(value, kept[name], atol=1e-12) if value.is_floating_point() else None
    ours, theirs = (next(iter(net.parameters())) for net in (env.net, env.target.companion.net))
    assert not torch.equal(ours, theirs)


@pytest.mark.parametrize(("start", "more"), [(1.0, 0), (0.0, 1)])
def test_its_pass_is_counted_once_there_is_one(start, more):
    env, learner = make_round(method="rebat", loss__rebat_start=start, update_interval=50)
    play_round(env, learner)
    with Passes() as passes:
        played = env.play(learner.act(env.batch.x, env.batch.index, RandomKey.of(3)).index)
    forward, back, _ = passes.per_net
    steps = int(played.attacked.strategy.num_steps.sum())
    assert back == steps + B
    counted = float(image_passes(env.config, played.attacked, 0).sum())
    assert counted == 2 * steps + (3 + more) * B
    assert forward == steps + (2 + more) * B  # the steps, the update, the strategy net, and the average


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss.rebat_decay": 1.0}, "--loss.rebat-decay: 1 is out of range"),
        ({"loss.rebat_weight": -1.0}, "--loss.rebat-weight: -1 is out of range"),
        ({"loss.rebat_start": -1.0}, "--loss.rebat-start: -1 is out of range"),
    ],
)
def test_what_cannot_be_is_refused(changes, told):
    with pytest.raises(UsageError, match=told):
        check(changed(small_config(method="rebat"), changes))
