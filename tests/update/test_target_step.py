"""One update of the target net: what it reports, what it moves, and what it must leave alone."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lasat_ray.config import LossConfig
from lasat_ray.errors import UserError
from lasat_ray.methods import METHODS, Method
from lasat_ray.models import batch_norm_buffers, build_classifier
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import AttackedBatch
from lasat_ray.update.target_step import TargetStep
from lasat_ray.update.task import Task, plain_step
from tests.support.helpers import close, make_batch, make_game, small_config, strategy_of

F64 = torch.float64
OPTIM = {
    "optim__lr": 0.1,
    "optim__schedule": "multistep",
    "optim__milestones": (1.0,),
    "optim__momentum": 0.9,
}


def make_target(model="small_cnn", net=None, **changes):
    config = small_config(precision="fp64", **{**OPTIM, **changes})
    torch.manual_seed(0)
    net = net or build_classifier(model, num_classes=4, image_shape=(1, 8, 8), precision="fp64")
    return TargetStep(net, config, ProcessGroup(), rounds_per_epoch=3)


def make_case(count=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, 8, 8, generator=g, dtype=F64)
    x_adv = (x + 0.2 * torch.rand(x.shape, generator=g, dtype=F64)).clamp(0, 1)
    ones = torch.ones(count, dtype=F64)
    beta = torch.linspace(1, 9, count, dtype=F64)
    strategy = strategy_of(ones, ones.long(), ones, trades_beta=beta)
    return AttackedBatch(batch=make_batch(x, torch.arange(count) % 4), x_adv=x_adv, strategy=strategy)


def state_of(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def unchanged(net, state):
    return all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("chosen", [(0.02,) * 6, (0.0, 0.04, 0.01, 0.03, 0.02, 0.02)])
def test_chosen_perturbations_of_the_weights_act_by_their_mean(chosen):
    attacked = make_case()
    settled, free = make_target(method="pgd-at", loss__awp_gamma=0.02), make_target(method="pgd-at")
    fields = {**dict(attacked.strategy.items()), "awp_gamma": torch.tensor(chosen, dtype=F64)}
    settled(attacked)
    free(dataclasses.replace(attacked, strategy=strategy_of(**fields)))
    for name, value in settled.net.state_dict().items():
        close(free.net.state_dict()[name], value, atol=1e-12)


@pytest.mark.parametrize("method", ["pgd-at", "trades"])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_two_updates_by_hand(method, clip):
    """SGD with momentum and weight decay on the mean smoothed loss, the rate falling after round 2."""
    target = make_target(
        method=method, optim__weight_decay=0.01, optim__grad_clip=clip, loss__label_smoothing=0.3
    )
    attacked = make_case()
    batch, x_adv = attacked.batch, attacked.x_adv
    twin = copy.deepcopy(target.net)
    momenta = [torch.zeros_like(p) for p in twin.parameters()]
    for round in (2, 3):
        clean, adv = twin(batch.x), twin(x_adv)
        smooth = {"reduction": "none", "label_smoothing": 0.3 * 4 / 3}
        ce_B = F.cross_entropy(adv, batch.y, **smooth)
        if method == "trades":
            kl_B = F.kl_div(adv.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(
                1
            )
            ce_B = F.cross_entropy(clean, batch.y, **smooth) + attacked.strategy.trades_beta * kl_B
        grads = torch.autograd.grad(ce_B.mean(), list(twin.parameters()))
        norm = torch.cat([g.flatten() for g in grads]).norm()
        scale = min(1.0, clip / (float(norm) + 1e-6)) if clip else 1.0
        report = target(dataclasses.replace(attacked, round=round))
        close(report.loss, ce_B.detach())
        close(report.grad_norm, norm)
        assert torch.equal(report.adv_correct, adv.argmax(1) == batch.y)
        rate = {2: 0.1, 3: 0.01}[round]
        with torch.no_grad():
            for parameter, grad, momentum in zip(twin.parameters(), grads, momenta, strict=True):
                momentum.mul_(0.9).add_(scale * grad + 0.01 * parameter)
                parameter.sub_(rate * momentum)
        for ours, theirs in zip(target.net.parameters(), twin.parameters(), strict=True):
            close(ours.detach(), theirs.detach())


def test_l1_is_the_unsmoothed_loss_before_the_update():
    target = make_target(loss__label_smoothing=0.3)
    attacked = make_case()
    batch, x_adv = attacked.batch, attacked.x_adv
    with torch.no_grad():
        before = F.cross_entropy(target.net(x_adv), batch.y, reduction="none")
    report = target(attacked)
    close(report.l1, before)
    assert (report.loss - before).abs().max() > 1e-3


@pytest.mark.parametrize("training", [True, False])
def test_attack_strength_speaks_in_eval_mode_and_touches_nothing(training):
    target = make_target("small_cnn_bn", loss__label_smoothing=0.3)
    attacked = make_case()
    batch, x_adv = attacked.batch, attacked.x_adv
    target(attacked)
    target.net.train(training)
    state = state_of(target.net)
    l1, correct = target.attack_strength(attacked)
    assert unchanged(target.net, state) and target.net.training == training
    with torch.no_grad():
        logits = target.net.eval()(x_adv)
    close(l1, F.cross_entropy(logits, batch.y, reduction="none"))
    assert torch.equal(correct, logits.argmax(1) == batch.y)


def test_the_stepped_copy_is_one_plain_step_and_the_target_stays():
    target = make_target(
        "small_cnn_bn",
        loss__label_smoothing=0.2,
        reward__copy_label_smoothing=0.3,
        reward__copy_weight_decay=0.01,
        optim__weight_decay=0.5,
    )
    attacked = make_case()
    batch, x_adv = attacked.batch, attacked.x_adv
    target(attacked)  # momentum that the copy must not use
    state, memory = state_of(target.net), copy.deepcopy(target.optimizer.state_dict())
    twin = copy.deepcopy(target.net).train()
    copied = target.stepped_copy(dataclasses.replace(attacked, round=3))
    assert unchanged(target.net, state)
    for ours, theirs in zip(
        memory["state"].values(), target.optimizer.state_dict()["state"].values(), strict=True
    ):
        assert torch.equal(ours["momentum_buffer"], theirs["momentum_buffer"])
    loss = F.cross_entropy(twin(x_adv), batch.y, label_smoothing=0.3 * 4 / 3)
    grads = torch.autograd.grad(loss, list(twin.parameters()))
    for ours, weight, grad in zip(copied.parameters(), twin.parameters(), grads, strict=True):
        close(ours.detach(), (weight - 0.01 * (grad + 0.01 * weight)).detach())
    for ours, theirs in zip(copied.buffers(), twin.buffers(), strict=True):
        close(ours, theirs)


def test_trades_passes_clean_and_adversarial_images_separately():
    """Batch statistics of each kind by itself, clean first, as the published code."""
    target = make_target("small_cnn_bn", method="trades")
    twin = copy.deepcopy(target.net).train()
    attacked = make_case()
    batch, x_adv = attacked.batch, attacked.x_adv
    target(attacked)
    twin(batch.x)
    twin(x_adv)
    for ours, theirs in zip(target.net.buffers(), twin.buffers(), strict=True):
        close(ours, theirs)


def test_the_weight_average_follows_the_net():
    target = make_target(optim__ema_decay=0.9)
    first = state_of(target.net)
    attacked = make_case()
    target(attacked)
    for name, value in target.average.net.state_dict().items():
        close(value, 0.1 * first[name] + 0.9 * target.net.state_dict()[name], atol=1e-12)
    assert make_target().average is None


class PartlyFrozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen, self.free = nn.Linear(64, 8), nn.Linear(8, 4)
        self.frozen.requires_grad_(False)
        self.double()

    def forward(self, x):
        return self.free(self.frozen(x.flatten(1)))


def test_a_net_with_frozen_layers_can_be_trained_and_looked_ahead():
    target = make_target(net=PartlyFrozen(), optim__weight_decay=0.1, reward__copy_weight_decay=0.1)
    attacked = make_case()
    frozen, free = target.net.frozen.weight.clone(), target.net.free.weight.clone()
    copied = target.stepped_copy(attacked)
    assert torch.equal(copied.frozen.weight, frozen) and not torch.equal(copied.free.weight, free)
    target(attacked)
    assert torch.equal(target.net.frozen.weight, frozen) and not torch.equal(target.net.free.weight, free)


def test_the_plain_step_knows_nothing_of_the_images_of_others():
    """Half of a global batch moves the weights by half."""
    attacked = make_case()
    batch = attacked.batch
    moves = []
    for size in (6, 12):
        net = make_target().net
        before = net.backbone.fc.weight.detach().clone()
        share = dataclasses.replace(attacked, batch=dataclasses.replace(batch, global_size=size))
        settings = {"lr": 0.1, "weight_decay": 0.0, "group": ProcessGroup()}
        task = Task(method=METHODS["pgd-at"], attacked=share)
        plain_step(net, task, LossConfig(), **settings)
        moves.append(net.backbone.fc.weight.detach() - before)
    close(moves[1], moves[0] / 2, atol=1e-14)
    assert moves[0].abs().max() > 1e-4


OUTSIDE = Method(loss=lambda inputs: inputs.logits.adv.square().sum(1))
NO_METHOD = 3


def test_a_method_from_outside_trains():
    target = make_target(method="tests.update.test_target_step:OUTSIDE", optim__lr=0.01, optim__momentum=0.0)
    attacked = make_case()
    losses = [float(target(attacked).loss.mean()) for _ in range(4)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tests.update.test_target_step:NO_METHOD", "is no Method; see lasat_ray/methods/base.py"),
        ("tests.update.test_target_step:NOBODY", "has no 'NOBODY'"),
        ("pgdat", "is unknown; choose one of: adr, "),
    ],
)
def test_a_method_that_is_none_is_told_in_one_line(name, told):
    with pytest.raises(UserError) as caught:
        make_target(method=name)
    assert str(caught.value).startswith("--method: ") and told in str(caught.value)


def test_batch_norm_sees_the_clean_and_the_attacked_images_of_trades_once_each():
    """The authors' script passes the clean images a second time; docs/deviations.md."""
    game = make_game(small_config(method="trades", strategy="fixed", model="tiny_cnn_bn", batch_size=16))
    twice, once = copy.deepcopy(game.net).train(), copy.deepcopy(game.net).train()
    played = game.play(torch.zeros(16, 3, dtype=torch.int64))
    x, x_adv = played.attacked.batch.x, played.attacked.x_adv
    for net, passes in ((once, (x, x_adv)), (twice, (x, x_adv, x))):
        with torch.no_grad():
            for images in passes:
                net(images)
    moved = batch_norm_buffers(game.net)
    assert all(torch.equal(a, b) for a, b in zip(moved, batch_norm_buffers(once), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(moved, batch_norm_buffers(twice), strict=True))
