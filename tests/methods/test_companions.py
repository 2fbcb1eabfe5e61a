"""Second nets: which one a method gets, that a frozen one stays, and one line when there is none."""

import copy

import pytest
import torch
from torch import nn

from lasat_ray.config import LossConfig
from lasat_ray.data.classes import Classes
from lasat_ray.env.nets import build_companion
from lasat_ray.errors import UserError
from lasat_ray.methods import METHODS
from lasat_ray.models import FrozenNet, build_classifier
from lasat_ray.runs.checkpoint import save_checkpoint
from tests.support.helpers import attacked, close, inputs_of, make_batch, make_game, small_config, strategy_of

F64 = torch.float64
SHAPE = (1, 8, 8)


def teacher_file(path, classes=4):
    torch.manual_seed(1)
    net = build_classifier("small_cnn_bn", num_classes=classes, image_shape=SHAPE)
    card = {"model": "small_cnn_bn", "precision": "fp32", "num_classes": classes, "image_shape": list(SHAPE)}
    save_checkpoint(path, {"target_net": net.state_dict(), "card": card})
    return net.eval()


def config_of(method, **changes):
    return small_config(method=method, strategy="fixed", precision="fp64", batch_size=16, **changes)


def test_a_trained_teacher_has_its_own_net_and_moves_with_the_target():
    env = make_game(config_of("lbgat", teacher_model="small_cnn_bn"))
    target = env.target
    assert len(target.optimizer.param_groups[0]["params"]) == len(list(target.trained.parameters()))
    before = copy.deepcopy(target.companion.state_dict())
    env.step(torch.zeros(16, 3, dtype=torch.int64))
    after = target.companion.state_dict()
    learned = [name for name, _ in target.companion.named_parameters()]
    assert all(not torch.equal(before[name], after[name]) for name in learned)


@pytest.mark.parametrize("method", ["hat", "ltd"])
def test_a_frozen_teacher_stays_whatever_happens_around_it(method, tmp_path):
    net = teacher_file(tmp_path / "t.safetensors").double()
    env = make_game(config_of(method, teacher=str(tmp_path / "t.safetensors")))
    companion, x = env.target.companion, env.batch.x
    assert isinstance(companion, FrozenNet)
    before = copy.deepcopy(companion.state_dict())
    env.step(torch.zeros(16, 3, dtype=torch.int64))
    assert all(torch.equal(before[name], value) for name, value in companion.state_dict().items())
    companion.train()
    close(companion(x), net(x).detach().to(companion(x).dtype), atol=1e-5)
    assert not companion(x).requires_grad


def test_a_teacher_that_does_not_fit_is_told_in_one_line(tmp_path):
    teacher_file(tmp_path / "t.safetensors", classes=7)
    cases = {
        None: "--teacher: --method hat learns from a net; name its run folder",
        str(tmp_path / "t.safetensors"): "--teacher: .* tells 7 classes .* apart, not 4 of",
        str(tmp_path / "none"): "no such run folder or checkpoint",
    }
    for teacher, told in cases.items():
        with pytest.raises(UserError, match=told) as caught:
            build_companion(config_of("hat", teacher=teacher), Classes.numbered(4), SHAPE)
        assert "\n" not in str(caught.value)


def test_hat_and_ltd_by_hand():
    g = torch.Generator().manual_seed(0)
    adv, clean, helper, teacher = torch.randn(4, 6, 5, generator=g, dtype=F64)
    y, ones = torch.arange(6) % 5, torch.ones(6, dtype=F64)
    strategy = strategy_of(ones, ones.long(), ones)
    config = LossConfig(trades_beta=2.5, hat_gamma=0.5, ltd_temperature=3.0)
    logits = {"adv": adv, "clean": clean, "helper": helper, "companion": teacher}
    p, q = clean.softmax(1), adv.softmax(1)
    kl = (p * (p.log() - q.log())).sum(1)
    ce = nn.CrossEntropyLoss(reduction="none")
    hat = METHODS["hat"].loss(inputs_of(y, strategy, config, **logits))
    close(hat, ce(clean, y) + 2.5 * kl + 0.5 * ce(helper, teacher.argmax(1)))
    ltd = METHODS["ltd"].loss(inputs_of(y, strategy, config, **logits))
    close(ltd, ce(clean, (teacher / 3).softmax(1)) + 2.5 * kl)
    score = METHODS["score"].loss(inputs_of(y, strategy, config, **logits))
    close(score, ((p - torch.eye(5, dtype=F64)[y]) ** 2).sum(1) + 2.5 * ((p - q) ** 2).sum(1))


def test_a_helper_stands_twice_as_far_out():
    seen = []

    def net(x):
        seen.append(x)
        return x.flatten(1)

    from lasat_ray.update.task import forward

    x, x_adv = torch.rand(2, 3, 1, 2, 2, dtype=F64)
    ones = torch.ones(3, dtype=F64)
    given = attacked(make_batch(x, torch.zeros(3).long()), x_adv, strategy_of(ones, ones.long(), ones))
    forward(net, METHODS["hat"], given, companion=net)
    for got, want in zip(seen, (x, x_adv, x + 2 * (x_adv - x), x_adv), strict=True):
        close(got, want)
