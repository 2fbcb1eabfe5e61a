"""Learning rates against the published scripts' schedules; the weight average by its formula."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lasat_ray.config import OptimConfig
from lasat_ray.models import build_classifier
from lasat_ray.process_group import ProcessGroup
from lasat_ray.update.optim import (
    EqualAverage,
    WeightAverage,
    learning_rate,
    make_optimizer,
    set_rate,
    step_size,
)
from lasat_ray.update.target_step import TargetStep
from tests.support.helpers import close, golden, small_config


def course(config, epochs):
    """The rate at the start of each epoch, epochs counted from 1 in the scripts."""
    return torch.tensor([learning_rate(config, e, epochs) for e in range(epochs)], dtype=torch.float64)


@pytest.mark.parametrize(
    ("key", "lr", "milestones", "first", "last"),
    [
        ("lr_trades", 0.1, (74.0,), 1, 76),
        ("lr_mart_resnet", 0.01, (74.0, 89.0, 99.0), 1, 120),
        ("lr_mart_wrn", 0.1, (74.0, 89.0), 1, 90),
        ("lr_fat_trades", 0.1, (74.0,), 1, 85),
        ("lr_awp_trades", 0.1, (99.0, 149.0), 1, 200),
        ("lr_gairat_E100", 0.1, (29.0, 59.0), 1, 100),
    ],
)
def test_multistep_is_the_scripts_schedule(key, lr, milestones, first, last):
    stored = golden("schedules")[key]
    config = OptimConfig(lr=lr, schedule="multistep", milestones=milestones)
    close(course(config, len(stored))[first - 1 : last], stored[first - 1 : last], atol=1e-15)


@pytest.mark.parametrize(
    ("key", "lr", "milestones", "factors"),
    [
        ("lr_fat", 0.1, (59.0, 89.0, 109.0), (0.1, 0.1, 0.5)),
        ("lr_gairat_E120", 0.1, (59.0, 89.0, 109.0), (0.1, 0.1, 0.5)),
        ("lr_fat_mart", 0.1, (59.0, 89.0), (0.1, 0.1)),
        ("lr_lbgat", 0.02, (1.0, 75.0, 90.0), (5.0, 0.1, 0.1)),
    ],
)
def test_each_milestone_may_have_its_own_factor(key, lr, milestones, factors):
    stored = golden("schedules")[key]
    config = OptimConfig(lr=lr, schedule="multistep", milestones=milestones, lr_decay=factors)
    close(course(config, len(stored)), stored, atol=1e-15)


@pytest.mark.parametrize("key", ["lr_awp_at", "lr_las_awp"])
def test_a_milestone_holds_from_its_very_epoch_on(key):
    stored = golden("schedules")
    config = OptimConfig(lr=0.1, schedule="multistep", milestones=(100.0, 150.0))
    rates = [learning_rate(config, t, 201) for t in stored["awp_at_t"].tolist()]
    close(torch.tensor(rates, dtype=torch.float64), stored[key], atol=1e-15)


@pytest.mark.parametrize(
    ("key", "milestones"),
    [("lr_las_pgd_at_milestone_steps", (99.0, 104.0)), ("lr_las_trades_milestone_steps", (75.0, 90.0))],
)
def test_the_rate_drops_at_the_very_update(key, milestones):
    stored = golden("schedules")
    batches = stored["las_batches_per_epoch"]
    config = OptimConfig(lr=0.1, schedule="multistep", milestones=milestones)
    for n, step in enumerate(stored[key].tolist()):
        before, after = (learning_rate(config, s / batches, 110) for s in (step - 1, step))
        assert (before, after) == pytest.approx((0.1 * 0.1**n, 0.1 * 0.1 ** (n + 1)), rel=1e-12)


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing():
    config = OptimConfig(lr=0.2, schedule="one-cycle", warmup_epochs=10.0)
    points = [(0.0, 0.008), (5.0, 0.104), (10.0, 0.2), (20.0, 0.1), (30.0, 0.0)]
    assert [learning_rate(config, e, 30) for e, _ in points] == pytest.approx([r for _, r in points])
    unset = dataclasses.replace(config, warmup_epochs=0.0)
    assert learning_rate(unset, 12.0, 30) == pytest.approx(0.2)
    assert learning_rate(unset, 21.0, 30) == pytest.approx(0.1)


def test_cosine_and_constant_with_and_without_warm_up():
    cosine = OptimConfig(lr=0.2, schedule="cosine")
    expected = [0.2, 0.2 * 0.5 * (1 + 2**-0.5), 0.1, 0.0]
    assert [learning_rate(cosine, e, 20) for e in (0, 5, 10, 20)] == pytest.approx(expected)
    warm = dataclasses.replace(cosine, warmup_epochs=4.0)
    assert [learning_rate(warm, e, 20) for e in (0, 2, 4, 12)] == pytest.approx([0.008, 0.104, 0.2, 0.1])
    constant = OptimConfig(lr=0.2, schedule="constant", warmup_epochs=4.0, warmup_start=0.2)
    assert [learning_rate(constant, e, 20) for e in (0, 1, 4, 19)] == pytest.approx([0.04, 0.08, 0.2, 0.2])


@pytest.mark.parametrize("schedule", ["constant", "multistep", "cosine", "one-cycle"])
@pytest.mark.parametrize("warmup_epochs", [0.0, 2.5])
def test_no_round_is_wasted_at_a_rate_of_zero(schedule, warmup_epochs):
    config = OptimConfig(lr=0.2, schedule=schedule, warmup_epochs=warmup_epochs, milestones=(3.0, 7.0))
    rates = [learning_rate(config, round / 5, 10) for round in range(50)]
    assert min(rates) > 0 and max(rates) == pytest.approx(0.2, rel=0.1)
    if warmup_epochs:
        begin = torch.optim.lr_scheduler.OneCycleLR  # its default begins at 1/25 of the peak, as we do
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        begin(optimizer, max_lr=0.2, total_steps=50)
        assert rates[0] == pytest.approx(optimizer.param_groups[0]["lr"])


def numbered(value):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    for tensor in net.state_dict().values():
        tensor.fill_(value)
    return net


def test_the_average_decays_as_published():
    """Weights 1 after weights 0: what is left of the 0 is the decay itself. Ours starts without
    the scripts' ten updates of warm-up."""
    stored = golden("schedules")
    average = WeightAverage(numbered(0.0), 0.995)
    decays = dict(
        zip(stored["ema_step"].tolist(), stored["ema_decay_warmup10_rate0.995"].tolist(), strict=True)
    )
    one = numbered(1.0)
    for update in range(2000 - 10 + 1):
        if update + 10 in decays:
            average.net[0].weight.data.zero_()
            average.update(one)
            close(1 - average.net[0].weight, torch.full((3, 2), decays[update + 10], dtype=torch.float64))
        else:
            average.updates += 1
    assert average.updates == 1991


def test_the_average_holds_weights_and_copies_statistics():
    net = numbered(0.0)
    average = WeightAverage(net, 0.5)
    kept = 1.0
    for update, value in enumerate((1.0, 2.0, 3.0, 4.0, 5.0)):
        net = numbered(value)
        average.update(net)
        decay = min(0.5, (1 + update) / (10 + update))
        kept = decay * (0.0 if update == 0 else kept) + (1 - decay) * value
        close(average.net[1].bias, torch.full((3,), kept, dtype=torch.float64), atol=1e-14)
        close(average.net[1].running_mean, torch.full((3,), value, dtype=torch.float64))
        assert average.net[1].num_batches_tracked == int(value)
    assert not any(p.requires_grad for p in average.net.parameters())


def norm_net(seed):
    """Weights and BatchNorm statistics of their own for every seed."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 2)).double()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64))
    return net


def test_the_equal_average_is_pytorchs():
    """torch.optim.swa_utils, statistics averaged with the weights."""
    ours, theirs = EqualAverage(norm_net(0)), AveragedModel(norm_net(0), use_buffers=True)
    for seed in range(1, 8):
        ours.update(norm_net(seed))
        theirs.update_parameters(norm_net(seed))
        for name, value in theirs.module.state_dict().items():
            if value.is_floating_point():
                close(ours.net.state_dict()[name], value, atol=1e-14)


def test_the_moving_average_is_pytorchs_once_its_decay_is_reached():
    """A decay of a tenth is reached at once; theirs takes its first net as it is."""
    ours = WeightAverage(norm_net(0), 0.1)
    theirs = AveragedModel(norm_net(0), multi_avg_fn=get_ema_multi_avg_fn(0.1))
    theirs.update_parameters(norm_net(0))
    for seed in range(1, 8):
        ours.update(norm_net(seed))
        theirs.update_parameters(norm_net(seed))
        for mine, other in zip(ours.net.parameters(), theirs.module.parameters(), strict=True):
            close(mine, other.detach(), atol=1e-14)


def test_the_average_is_a_net_of_its_own():
    net = numbered(1.0)
    average = WeightAverage(net, 0.9)
    net[0].weight.data.fill_(7.0)
    assert (average.net[0].weight == 1.0).all()
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("decay_norms", [True, False])
@pytest.mark.parametrize("nesterov", [True, False])
def test_one_sgd_step_by_hand(decay_norms, nesterov):
    torch.manual_seed(0)
    net = build_classifier("small_cnn_bn", num_classes=3, image_shape=(1, 8, 8), precision="fp64")
    config = OptimConfig(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov, decay_norms=decay_norms)
    optimizer = make_optimizer(net, config)
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    momenta = dict.fromkeys(weights, 0.0)
    for step in range(2):
        for n, parameter in enumerate(net.parameters()):
            parameter.grad = torch.full_like(parameter, 0.1 * (n + step))
        optimizer.step()
        for n, name in enumerate(weights):
            decay = 0.01 if decay_norms or weights[name].ndim > 1 else 0.0
            grad = 0.1 * (n + step) + decay * weights[name]
            momenta[name] = 0.9 * momenta[name] + grad
            weights[name] = weights[name] - 0.1 * (grad + 0.9 * momenta[name] if nesterov else momenta[name])
    for name, parameter in net.named_parameters():
        close(parameter.detach(), weights[name], atol=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_restarts_are_those_of_pytorch(factor):
    config = OptimConfig(lr=0.3, schedule="restarts", restart_epochs=4.0, restart_factor=float(factor))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=4, T_mult=factor)
    for quarter in range(4 * 30):
        theirs.step(quarter / 4)
        wanted = optimizer.param_groups[0]["lr"]
        assert learning_rate(config, quarter / 4, 30) == pytest.approx(wanted, abs=1e-12), quarter / 4


def test_a_target_is_stepped_at_the_rates_of_warm_restarts():
    """Round by round through the epochs: 3 rounds each, restarts after 2 and 6 epochs."""
    config = small_config(
        optim__schedule="restarts", optim__restart_epochs=2.0, optim__restart_factor=2.0, optim__lr=0.3
    )
    net = build_classifier("small_cnn", num_classes=4, image_shape=(1, 8, 8))
    target = TargetStep(net, config, ProcessGroup(), rounds_per_epoch=3)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=2)
    for round in range(3 * 10):
        theirs.step(round / 3)
        assert target.rate(round) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12), round


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()


def test_adamw_with_factors_by_its_formula():
    """Decoupled decay, both moments with their corrections (Loshchilov and Hutter 2019), a rate a group."""
    net, twin = two_layers(), two_layers()
    config = OptimConfig(optimizer="adamw", momentum=0.8, beta2=0.95, weight_decay=0.1, lr=1.0)
    factors = {id(net[0].weight): 0.1, id(net[0].bias): 0.1}
    optimizer = make_optimizer(net, config, factors)
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in twin.parameters()]
    x = torch.rand(5, 3, dtype=torch.float64)
    for step, rate in ((1, 0.01), (2, 0.002)):
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        (net(x) ** 2).sum().backward()
        optimizer.step()
        gradients = torch.autograd.grad((twin(x) ** 2).sum(), list(twin.parameters()))
        with torch.no_grad():
            for n, (p, g) in enumerate(zip(twin.parameters(), gradients, strict=True)):
                own = rate * (0.1 if n < 2 else 1.0)
                m, v = moments[n]
                m.mul_(0.8).add_(0.2 * g)
                v.mul_(0.95).add_(0.05 * g * g)
                p.mul_(1 - own * 0.1)
                p.sub_(own * (m / (1 - 0.8**step)) / ((v / (1 - 0.95**step)).sqrt() + 1e-8))
        for mine, theirs in zip(net.parameters(), twin.parameters(), strict=True):
            close(mine.detach(), theirs.detach(), atol=1e-14)
    for parameter, (_, v) in zip(net.parameters(), moments, strict=True):
        factor = factors.get(id(parameter), 1.0)
        close(step_size(optimizer, parameter), factor / ((v / (1 - 0.95**2)).sqrt() + 1e-8), atol=1e-8)


def test_the_default_is_the_optimizer_of_before_and_old_states_fit():
    net = two_layers()
    optimizer = make_optimizer(net, OptimConfig(), {})
    assert type(optimizer) is torch.optim.SGD and len(optimizer.param_groups) == 1
    assert "factor" not in optimizer.param_groups[0]
    set_rate(optimizer, 0.3)
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert step_size(optimizer, net[0].weight) == 1.0


def test_parts_of_a_group_keep_their_weight_decay():
    net = build_classifier("small_cnn_bn", num_classes=3, image_shape=(1, 8, 8))
    config = OptimConfig(decay_norms=False, weight_decay=0.01)
    factors = {id(p): 0.1 for name, p in net.named_parameters() if "convs" in name}
    groups = make_optimizer(net, config, factors).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    found = {(group["weight_decay"], group["factor"]) for group in groups}
    assert found == {(0.01, 0.1), (0.01, 1.0), (0.0, 0.1), (0.0, 1.0)}
