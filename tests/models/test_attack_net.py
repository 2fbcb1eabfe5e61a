"""The net that attacks see is the same function, follows the weights, and costs less."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from lasat_ray.attacks import attack_batch
from lasat_ray.config import SpeedConfig
from lasat_ray.models import AttackNet, AttackView, build_classifier
from lasat_ray.rng import RandomKey
from tests.support.helpers import close, make_batch, strategy_of

SHAPE = (3, 16, 16)
FOLDED = {"small_cnn_bn": 3, "resnet18-4": 20, "resnet50-4": 53, "preact_resnet18-4": 8, "wrn-10-1": 3}
OUTSIDE = {"torchvision:mobilenet_v3_small": 34, "torchvision:densenet121": 59}
FOLD = SpeedConfig(fold_batch_norm=True)


def lived_in(net, seed=0):
    """``net`` with the statistics, scales and shifts of a net that has been trained."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
            ):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return net


def make_net(name, precision="fp64", seed=0, shape=SHAPE, **options):
    torch.manual_seed(seed)
    net = build_classifier(name, num_classes=5, image_shape=shape, precision=precision, **options)
    return lived_in(net, seed)


def images(dtype=torch.float64, count=6, shape=SHAPE):
    return torch.rand(count, *shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def logits_and_gradient(net, x):
    x = x.clone().requires_grad_(True)
    logits = net(x)
    (grad,) = torch.autograd.grad((logits * torch.arange(5)).sum(), x)
    return logits.detach(), grad


@pytest.mark.parametrize("name", FOLDED)
def test_folding_keeps_logits_and_input_gradients(name):
    net, x = make_net(name), images()
    attacked = AttackNet(net, FOLD, x[:2])
    assert len(attacked.pairs) == FOLDED[name]
    pairs = zip(logits_and_gradient(attacked, x), logits_and_gradient(net.eval(), x), strict=True)
    for ours, theirs in pairs:
        close(ours, theirs, atol=1e-11 * float(1 + theirs.abs().max()))


@pytest.mark.parametrize("name", FOLDED)
def test_in_fp32_folding_changes_logits_by_rounding_and_hardly_a_step(name):
    """A ReLU whose input is within rounding of 0 may fall to the other side, so gradients are
    compared by sign, which is all that an L-inf step takes of them."""
    net, x = make_net(name, "fp32"), images(torch.float32)
    logits, grad = logits_and_gradient(AttackNet(net, FOLD, x[:2]), x)
    exact_logits, exact_grad = logits_and_gradient(net.eval(), x)
    close(logits, exact_logits, atol=1e-5 * float(1 + exact_logits.abs().max()))
    assert (grad.sign() == exact_grad.sign()).double().mean() > 0.98


@pytest.mark.parametrize("name", OUTSIDE)
def test_nets_from_elsewhere_are_folded_as_far_as_they_allow(name):
    torch.manual_seed(0)
    net = build_classifier(name, num_classes=5, image_shape=(3, 64, 64), precision="fp64")
    x = images(count=2, shape=(3, 64, 64))
    attacked = AttackNet(net, FOLD, x)
    assert len(attacked.pairs) == OUTSIDE[name]
    close(attacked(x), net.eval()(x), atol=1e-9)


def test_bf16_keeps_the_folded_weights_in_bf16():
    net = make_net("resnet18-4", "bf16")
    attacked = AttackNet(net, FOLD, images(torch.float32)[:2])
    assert len(attacked.pairs) == 20
    assert attacked.copy.backbone.conv1.weight.dtype == torch.bfloat16
    x = images(torch.float32)
    logits, exact = attacked(x), make_net("resnet18-4", "fp32").eval()(x)
    assert logits.dtype == torch.float32
    assert (logits - exact).abs().max() < 0.05 * (1 + exact.abs().max())


class ReadTwice(nn.Module):
    """Convolutions whose BatchNorm must stay: output read twice, called twice, hooked, shared."""

    def __init__(self):
        super().__init__()
        self.twice, self.again, self.hooked, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(5))
        self.hooked.register_forward_hook(lambda module, inputs, output: output + 1)

    def forward(self, x):
        y = self.twice(x)
        x = self.norms[0](y) + y
        x = self.norms[1](self.again(x)) + self.norms[2](self.again(x))
        x = self.norms[3](self.hooked(x))
        return self.norms[4](self.last(x)).mean((2, 3))


def test_a_norm_that_cannot_be_folded_exactly_stays():
    net, x = lived_in(ReadTwice().double()), images()
    attacked = AttackNet(net, FOLD, x[:2])
    assert attacked.pairs == [("last", "norms.4")]
    close(attacked(x), net.eval()(x), atol=1e-12)


def test_refresh_follows_the_weights_and_keeps_its_memory():
    net, x = make_net("resnet18-4"), images()
    attacked = AttackNet(net, FOLD, x[:2])
    places = [tensor.data_ptr() for tensor in attacked.state_dict().values()]
    later = make_net("resnet18-4", seed=1).train()
    close(attacked.refresh(later)(x), copy.deepcopy(later).eval()(x), atol=1e-10)
    assert [tensor.data_ptr() for tensor in attacked.state_dict().values()] == places
    assert later.training and all(p.requires_grad for p in later.parameters())


def test_the_copy_is_frozen_and_the_net_does_not_feel_it():
    net, x = make_net("resnet18-4").train(), images()
    before = copy.deepcopy(net.state_dict())
    attacked = AttackNet(net, FOLD, x[:2]).train()
    logits_and_gradient(attacked, x)
    assert not any(p.requires_grad for p in attacked.parameters())
    assert not any(module.training for module in attacked.copy.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters()) and net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_where_nothing_is_gained_the_net_itself_is_attacked():
    x = images()
    plain = make_net("small_cnn")
    assert AttackView(FOLD)(plain, x) is plain
    net = make_net("resnet18-4")
    assert AttackView(SpeedConfig(fold_batch_norm=False))(net, x) is net
    view = AttackView(FOLD)
    assert isinstance(view(net, x), AttackNet)
    assert view(net, x) is view(make_net("resnet18-4", seed=1), x)


def attack(net, x, **options):
    count = len(x)
    batch = make_batch(x, torch.arange(count) % 5)
    steps = torch.arange(count) % 5 + 1
    full = torch.ones(count, dtype=x.dtype)
    strategy = strategy_of(full * 0.03, steps, full * 0.01)
    key = RandomKey.of(0, "speed")
    return attack_batch(net, batch, strategy, key, loss="ce", start_kind="uniform", **options)


@pytest.mark.parametrize("name", FOLDED)
def test_an_attack_on_the_folded_net_is_the_same_attack(name):
    net, x = make_net(name), images()
    close(attack(AttackNet(net, FOLD, x[:2]), x), attack(net, x), atol=1e-10)


@pytest.mark.parametrize("name", ["resnet18-8", "wrn-10-1"])
def test_channels_last_is_the_same_function(name):
    plain, turned = make_net(name), make_net(name, channels_last=True)
    x = images()
    weight = turned.backbone.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    close(turned.eval()(x), plain.eval()(x), atol=1e-10)
    folded = AttackNet(turned, FOLD, x[:2])
    assert (
        folded.copy.backbone.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
        if name == "resnet18-4"
        else True
    )
    close(attack(folded, x), attack(plain, x), atol=1e-10)


def test_a_net_with_narrow_layers_stays_as_it_is():
    assert make_net("resnet18-8", channels_last=True).channels_last
    assert not make_net("resnet18-4", channels_last=True).channels_last


class Sizes(nn.Module):
    """Notes the batch sizes that pass."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x):
        self.seen.append(len(x))
        return self.net(x)


def test_with_a_bucket_few_batch_sizes_occur_and_the_attack_is_the_same():
    net, x = make_net("resnet18-4"), images(count=13)
    exact, filled = Sizes(net), Sizes(net)
    close(attack(filled, x, bucket=4), attack(exact, x), atol=1e-12)
    assert exact.seen == [8, 7, 7, 7, 7]
    assert filled.seen == [8] * 5


def test_images_that_leave_the_batch_cause_no_compilation(monkeypatch):
    torch._dynamo.reset()
    counter = CompileCounter()
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, backend: compile_(net, backend=counter))
    net, x = make_net("resnet18-4"), images(count=16)
    speed = SpeedConfig(compile="eager", bucket=2)
    attacked = AttackNet(net, speed, x[:2])
    expected = attack(net, x)
    for _ in range(2):
        close(attack(attacked.refresh(net), x, bucket=2), expected, atol=1e-10)
    assert counter.frame_count == 1


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_attack_net_is_the_same_function(backend):
    torch._dynamo.reset()
    net, x = make_net("small_cnn_bn"), images()
    attacked = AttackNet(net, SpeedConfig(compile=backend), x[:2])
    close(attack(attacked, x), attack(net, x), atol=1e-10)
