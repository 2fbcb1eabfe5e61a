"""TE: loss, ramp and average by hand, and the table that keeps the averages."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lasat_ray.attacks import objective_of
from lasat_ray.config import LossConfig
from lasat_ray.env.build import build_round
from lasat_ray.errors import UsageError
from lasat_ray.methods import METHODS
from lasat_ray.methods.te import ramp, weight_at
from lasat_ray.models import eval_mode
from lasat_ray.process_group import ProcessGroup
from lasat_ray.training.round import play_round
from lasat_ray.validation import check
from tests.support.helpers import (
    CPU,
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
CONFIG = LossConfig(te_weight=30.0, te_epochs=(2.0, 4.0))


def test_the_weight_rises_as_in_the_authors_code():
    def theirs(current, start=90, end=150):
        if current < start:
            return 0.0
        if current > end:
            return 1.0
        phase = 1.0 - (current - start) / (end - start)
        return math.exp(-5.0 * phase * phase)

    for number in range(1, 201):
        assert ramp(number, 90, 150) == pytest.approx(theirs(number), abs=1e-15)
        assert weight_at(number - 1, LossConfig(), 200) == pytest.approx(300 * theirs(number), abs=1e-12)
    assert weight_at(8, LossConfig(), 20) > 0 == weight_at(7, LossConfig(), 20)  # stretched: epoch 9 of 20


def given(adv, epoch):
    ones, y = torch.ones(B, dtype=F64), torch.arange(B) % N
    soft = torch.rand(B, N, dtype=F64, generator=torch.Generator().manual_seed(1)).softmax(1)
    made = inputs_of(y, strategy_of(ones, ones.long(), ones), CONFIG, adv=adv)
    return dataclasses.replace(made, soft_y=soft, epoch=epoch, epochs=4), y, soft


@pytest.mark.parametrize(("epoch", "share"), [(1, math.exp(-5)), (2, math.exp(-5 / 4)), (3, 1.0)])
def test_the_loss_and_its_gradient_by_hand(epoch, share):
    adv = torch.randn(B, N, dtype=F64, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    inputs, y, soft = given(adv, epoch)
    loss = METHODS["te"].loss(inputs)
    p = adv.softmax(1)
    wanted = F.cross_entropy(adv, y, reduction="none") + 30 * share * ((p - soft) ** 2).mean(1)
    close(loss, wanted)
    (grad,), p = torch.autograd.grad(loss.sum(), adv), p.detach()
    pulled = 2 * 30 * share / N * p * ((p - soft) - (p * (p - soft)).sum(1, keepdim=True))
    close(grad, p - F.one_hot(y, N) + pulled)


def a_game(**changes):
    config = small_config(
        method="te",
        precision="fp64",
        batch_size=16,
        strategy="fixed",
        epochs=4,
        model="small_cnn_bn",
        **changes,
    )
    config = changed(config, {"loss.te_epochs": (2.0, 4.0), "loss.te_weight": 30.0, "loss.te_decay": 0.8})
    return build_round(config, make_images(48), 4, group=ALONE, device=CPU)


def test_averages_are_those_of_all_that_the_net_said():
    env, learner = a_game()
    said = {n: [] for n in range(48)}
    for round in range(4 * env.target.rounds_per_epoch):
        index = env.batch.index.tolist()
        with torch.no_grad(), eval_mode(env.net):
            p = env.net(env.batch.x).softmax(1)
        attacked = env.attack_as_chosen(env.space.decode(torch.zeros(16, 3, dtype=torch.int64)))
        if round < env.target.rounds_per_epoch:
            assert attacked.batch.soft_y is None and env.target.remembered(round) == {}
        else:
            for row, n in enumerate(index):
                said[n].append(p[row])
                weights = [0.8 ** (len(said[n]) - 1 - k) for k in range(len(said[n]))]
                total = sum(w * value for w, value in zip(weights, said[n], strict=True))
                close(attacked.batch.soft_y[row], total / sum(weights), atol=1e-9)
        play_round(env, learner)
    kept = env.target.remembered(env.round)
    assert kept["times"].tolist() == [len(said[n]) for n in range(48)] == [3] * 48
    close(kept["ensemble"].sum(1), torch.ones(48, dtype=F64))


def test_the_attack_raises_what_training_lowers():
    env, learner = a_game()
    for _ in range(2 * env.target.rounds_per_epoch):
        play_round(env, learner)
    strategy = env.space.decode(torch.zeros(16, 3, dtype=torch.int64))
    context = env.target.method.labelled(
        dataclasses.replace(env._attack_context(strategy, None), net=env.net)
    )
    adv = torch.randn(16, 4, dtype=F64, generator=torch.Generator().manual_seed(3))
    raised = env.target.method.raised(context)
    found = objective_of(raised, nn.Flatten(), context.batch)(adv, slice(None))
    soft, weight = context.batch.soft_y, 30 * math.exp(-5 / 4)
    close(
        found,
        F.cross_entropy(adv, env.batch.y, reduction="none") + weight * ((adv.softmax(1) - soft) ** 2).mean(1),
    )
    plain = make_batch(env.batch.x, env.batch.y)  # before it begins
    found = objective_of(raised, nn.Flatten(), plain)(adv, slice(None))
    close(found, F.cross_entropy(adv, env.batch.y, reduction="none"))


def test_what_does_not_go_with_it_is_refused():
    with pytest.raises(UsageError, match=r"--loss.te-epochs: 4 2 does not increase"):
        check(changed(small_config(method="te"), {"loss.te_epochs": (4.0, 2.0)}))
    with pytest.raises(UsageError, match=r"--data.cutmix: True mixes labels, but --method te forms"):
        check(changed(small_config(method="te"), {"data.cutmix": True}))
