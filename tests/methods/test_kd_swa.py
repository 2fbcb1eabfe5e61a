"""KD-SWA: the loss by hand, its two teachers, and the equal average of weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lasat_ray.config import LossConfig
from lasat_ray.data.classes import Classes
from lasat_ray.env.build import build_round
from lasat_ray.env.nets import build_companion
from lasat_ray.errors import UserError
from lasat_ray.methods import METHODS
from lasat_ray.models import FrozenNets
from lasat_ray.process_group import ProcessGroup
from lasat_ray.training.round import play_round
from lasat_ray.update.optim import EqualAverage
from lasat_ray.validation import check
from tests.methods.test_companions import SHAPE, teacher_file
from tests.support.helpers import CPU, close, inputs_of, make_images, small_config, strategy_of

F64 = torch.float64
B, N = 6, 5
CONFIG = LossConfig(kd_plain=0.1, kd_robust=0.6, kd_temperature=2.0)


def inputs(adv, teachers, config=CONFIG):
    ones, y = torch.ones(B, dtype=F64), torch.arange(B) % N
    return inputs_of(y, strategy_of(ones, ones.long(), ones), config, adv=adv, companion=teachers)


def test_the_loss_and_its_gradient_by_hand():
    g = torch.Generator().manual_seed(0)
    adv, plain, robust = torch.randn(3, B, N, dtype=F64, generator=g)
    adv.requires_grad_(True)
    loss = METHODS["kd-swa"].loss(inputs(adv, torch.stack([plain, robust], 1)))
    y = torch.arange(B) % N
    wanted = 0.3 * F.cross_entropy(adv, y, reduction="none")
    for weight, teacher in ((0.1, plain), (0.6, robust)):
        p = torch.exp(teacher / 2) / torch.exp(teacher / 2).sum(1, keepdim=True)
        log_q = adv / 2 - torch.log(torch.exp(adv / 2).sum(1, keepdim=True))
        wanted = wanted + weight * 4 * -(p * log_q).sum(1)
    close(loss, wanted)
    (grad,) = torch.autograd.grad(loss.sum(), adv)
    own = adv.softmax(1) - F.one_hot(y, N).to(F64)
    taught = [2 * ((adv / 2).softmax(1) - (t / 2).softmax(1)) for t in (plain, robust)]
    close(grad, 0.3 * own + 0.1 * taught[0] + 0.6 * taught[1])


def test_two_frozen_nets_are_asked_about_the_adversarial_images(tmp_path):
    plain = teacher_file(tmp_path / "a.safetensors").double()
    robust = teacher_file(tmp_path / "b.safetensors").double()
    config = small_config(
        method="kd-swa",
        strategy="fixed",
        precision="fp64",
        batch_size=16,
        teacher=str(tmp_path / "a.safetensors"),
        robust_teacher=str(tmp_path / "b.safetensors"),
    )
    check(config)
    env, learner = build_round(config, make_images(48), 4, group=ProcessGroup(), device=CPU)
    assert isinstance(env.target.companion, FrozenNets)
    before = [value.clone() for value in env.target.companion.state_dict().values()]
    play_round(env, learner)
    after = env.target.companion.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    x = torch.rand(3, *SHAPE, dtype=F64)
    env.target.companion.train()
    close(env.target.companion(x), torch.stack([plain(x), robust(x)], 1).detach(), atol=1e-5)


def test_a_robust_teacher_that_does_not_fit_is_told_by_its_own_name(tmp_path):
    teacher_file(tmp_path / "a.safetensors")
    teacher_file(tmp_path / "b.safetensors", classes=7)
    config = small_config(
        method="kd-swa",
        teacher=str(tmp_path / "a.safetensors"),
        robust_teacher=str(tmp_path / "b.safetensors"),
    )
    with pytest.raises(UserError, match=r"--robust-teacher: .* tells 7 classes"):
        build_companion(config, Classes.numbered(4), SHAPE)


def numbered(value):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    for tensor in net.state_dict().values():
        tensor.fill_(value)
    return net


def test_the_equal_average_is_the_mean_of_what_it_was_given():
    average = EqualAverage(numbered(100.0))
    assert not average.started
    for value in (1.0, 2.0, 6.0):
        average.update(numbered(value))
    assert average.started and average.updates == 3
    for name, value in average.net.state_dict().items():
        if name.endswith("batches_tracked"):
            assert value == 6
        else:
            close(value, torch.full_like(value, 3.0), atol=1e-14)


def test_nets_at_the_ends_of_epochs_are_averaged_and_then_deployed():
    config = small_config(
        strategy="fixed", precision="fp64", batch_size=16, epochs=4, optim__swa_start=2.0, model="small_cnn"
    )
    env, learner = build_round(config, make_images(48), 4, group=ProcessGroup(), device=CPU)
    ends = []
    for round in range(4 * env.target.rounds_per_epoch):
        assert (env.target.deployed is env.net) == (len(ends) < 3)
        play_round(env, learner)
        if (round + 1) % env.target.rounds_per_epoch == 0:
            ends.append({name: value.clone() for name, value in env.net.state_dict().items()})
    for name, value in env.target.deployed.state_dict().items():
        close(value, (ends[2][name] + ends[3][name]) / 2, atol=1e-12)
