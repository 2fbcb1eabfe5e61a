"""Influence credit against what really happens when one image counts a little less."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lasat_ray.attacks.objectives import cross_entropy
from lasat_ray.config import LossConfig, RewardConfig
from lasat_ray.errors import Fallback
from lasat_ray.methods import METHODS
from lasat_ray.models import FrozenNets, build_classifier
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import Batch, RewardTerms, Strategy
from lasat_ray.update import credit
from lasat_ray.update.credit import central_difference, directional_derivative, influence, outcome_gradient
from lasat_ray.update.reward import combine, reward_terms
from lasat_ray.update.task import Task
from tests.support.helpers import attacked
from tests.support.plugins import NoForwardMode

CONFIG = RewardConfig(credit="influence", standardize=True, alpha=1.3, beta=0.7)
LOSS = LossConfig(label_smoothing=0.1)


def smooth_net(norm: nn.Module | None = None) -> nn.Module:
    """No kinks, so that a finite difference converges at its own rate."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        norm or nn.Identity(),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(512, 5),
    ]
    return nn.Sequential(*layers).double().eval()


def case(n: int = 6) -> tuple[Batch, Tensor, Tensor, Strategy]:
    """A batch with adversarial and reference images near the clean ones."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 3, 8, 8, generator=generator, dtype=torch.float64)
    y = torch.randint(5, (n,), generator=generator)
    x_adv = (x + 0.1 * torch.rand(x.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    x_ref = (x - 0.1 * torch.rand(x.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    ones = torch.ones(n, dtype=torch.float64)
    strategy = Strategy(eps=ones, num_steps=ones.long(), step_size=ones)
    return Batch(x=x, y=y, index=torch.arange(n), global_size=n), x_adv, x_ref, strategy


def outcome(net: nn.Module, batch: Batch, x_ref: Tensor) -> Tensor:
    """alpha L2 + beta L3, mean over the batch."""
    with torch.no_grad():
        l2, l3 = -cross_entropy(net(x_ref), batch.y), -cross_entropy(net(batch.x), batch.y)
    return (CONFIG.alpha * l2 + CONFIG.beta * l3).mean()


def tied_outcome(net: nn.Module, batch: Batch, x_ref: Tensor) -> Tensor:
    """alpha L2 + beta L3 of each image, still tied to the weights."""
    terms = reward_terms(net, batch, x_ref, batch.x[:, 0, 0, 0], graph=True)
    return CONFIG.alpha * terms.l2 + CONFIG.beta * terms.l3


def influence_on(net: nn.Module, task: Task, x_ref: Tensor) -> Tensor:
    return influence(net, task, tied_outcome(net, task.attacked.batch, x_ref), LOSS, ProcessGroup())


def task_of(name: str, batch: Batch, x_adv: Tensor, strategy: Strategy) -> Task:
    """One update's loss; a method with a second net gets one that stays."""
    method = METHODS[name]
    companion = None if method.companion == "none" else smooth_net().requires_grad_(False)
    if method.companions == 2:
        companion = FrozenNets([smooth_net(), smooth_net()])
    return Task(
        method=method,
        attacked=attacked(batch, x_adv, strategy),
        companion=companion,
    )


def looked_ahead(method: str, lr: float, momentum: float, decay: float, weight_B: Tensor) -> nn.Module:
    """The net after two real SGD steps, the second with these weights on the images' losses."""
    net, (batch, x_adv, _, strategy) = smooth_net(), case()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum, weight_decay=decay)
    for weights in (torch.ones_like(weight_B), weight_B):
        optimizer.zero_grad()
        (weights * task_of(method, batch, x_adv, strategy).loss_of(net, LOSS)).mean().backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.attacks])
@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 5e-4)])
def test_influence_is_what_an_image_did_to_first_order(method: str, momentum: float, decay: float) -> None:
    batch, x_adv, x_ref, strategy = case()

    def relative_error(lr: float) -> float:
        net = looked_ahead(method, lr, momentum, decay, torch.ones(6, dtype=torch.float64))
        found = influence_on(net, task_of(method, batch, x_adv, strategy), x_ref)
        true = torch.empty_like(found)
        for n in range(6):
            up, down = torch.ones(2, 6, dtype=torch.float64)
            up[n], down[n] = 1.01, 0.99
            ends = [looked_ahead(method, lr, momentum, decay, w) for w in (up, down)]
            rise = outcome(ends[0], batch, x_ref) - outcome(ends[1], batch, x_ref)
            true[n] = rise / 0.02 * 6 / lr  # per unit of the common factor lr/N
        return float((found - true).norm() / true.norm())

    # MART has kinks, where the most probable wrong class changes: stay on one side of them.
    rate = 5e-4 if "mart" in method else 1e-3
    coarse, fine = relative_error(2 * rate), relative_error(rate)
    assert fine < 0.02
    # First order: what is left shrinks with the learning rate.
    assert 0.4 < fine / coarse < 0.6


@pytest.mark.parametrize(
    "norm", [None, nn.BatchNorm2d(8), nn.GroupNorm(2, 8)], ids=["none", "batch", "group"]
)
def test_forward_mode_agrees_with_single_gradients_and_with_differences(norm: nn.Module | None) -> None:
    net, (batch, x_adv, x_ref, _) = smooth_net(norm), case()
    direction = outcome_gradient(net, tied_outcome(net, batch, x_ref), len(batch.y), ProcessGroup())
    weights = {name: p.detach() for name, p in net.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return cross_entropy(torch.func.functional_call(net, values, (x_adv,)), batch.y)

    single = []
    for n in range(6):
        grads = torch.autograd.grad(cross_entropy(net(x_adv), batch.y)[n], list(net.parameters()))
        single.append(sum((g * d).sum() for g, d in zip(grads, direction.values(), strict=True)))
    torch.testing.assert_close(
        directional_derivative(loss, weights, direction), torch.stack(single), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        central_difference(loss, weights, direction), torch.stack(single), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 0.1), (torch.float64, 1e-6)])
def test_differences_are_near_on_a_trained_net_with_relu_and_batch_norm(
    dtype: torch.dtype, error: float
) -> None:
    """A longer step crosses kinks: its error is 27 % and 2e-4 at the root of the rounding unit."""
    torch.manual_seed(0)
    net = build_classifier("resnet18-8", num_classes=5, image_shape=(3, 16, 16), precision="fp32").to(dtype)
    x = torch.rand(64, 3, 16, 16, dtype=dtype)
    y = (x.mean((2, 3)).argmax(1) + (x[:, :, 0, 0].sum(1) > 1.5).long()) % 5
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    net.train()
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(net(x), y).mean().backward()
        optimizer.step()
    net.eval()
    seen = (x + 0.03 * torch.randn_like(x)).clamp(0, 1)
    weights = {name: p.detach() for name, p in net.named_parameters()}
    found = torch.autograd.grad(cross_entropy(net(seen), y).mean(), list(net.parameters()))
    direction = dict(zip(weights, found, strict=True))

    def loss(values: dict[str, Tensor]) -> Tensor:
        return cross_entropy(torch.func.functional_call(net, values, (seen,)), y)

    exact = directional_derivative(loss, weights, direction)
    difference = central_difference(loss, weights, direction) - exact
    assert float(difference.norm() / exact.norm()) < error


def test_a_layer_without_forward_mode_falls_back_to_a_difference() -> None:
    net, (batch, x_adv, x_ref, strategy) = smooth_net(), case()

    class Refuses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return NoForwardMode.apply(self.net(x))

    task = task_of("pgd-at", batch, x_adv, strategy)
    plain = influence_on(net, task, x_ref)
    credit._tell_fallback.cache_clear()
    with pytest.warns(Fallback, match="no forward derivative .You must implement the jvp"):
        fallen = influence_on(Refuses(), task, x_ref)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is told once a process
        influence_on(Refuses(), task, x_ref)
    # A difference over a step that short keeps six of float64's digits, on some processors five.
    torch.testing.assert_close(fallen, plain, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("the net's own: no such table"),
        KeyError("forward AD"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_failure_passes_as_it_is(error: Exception) -> None:
    """Each is a RuntimeError or in words like one; a difference would hide it or meet it again."""

    def loss(_: dict[str, Tensor]) -> Tensor:
        raise error

    weight = {"w": torch.ones(2)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(type(error)) as raised:
            directional_derivative(loss, weight, weight)
    assert raised.value is error


@pytest.mark.parametrize("name", ["resnet18-8", "preact_resnet18-8", "small_cnn_bn"])
def test_bf16_nets_with_batch_norm_have_the_credit_of_full_precision(name: str) -> None:
    """The weights are float32 in both; forward mode would raise under autocast's casts."""
    torch.manual_seed(0)
    x, y = torch.rand(6, 1, 8, 8), torch.randint(5, (6,))
    found = []
    for precision in ("bf16", "fp32"):
        torch.manual_seed(1)
        net = build_classifier(name, num_classes=5, image_shape=(1, 8, 8), precision=precision).eval()
        weights = {key: p.detach() for key, p in net.named_parameters()}

        def loss(values: dict[str, Tensor], net: nn.Module = net) -> Tensor:
            return cross_entropy(torch.func.functional_call(net, values, (x,)), y)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found.append(directional_derivative(loss, weights, {key: w.sign() for key, w in weights.items()}))
    assert torch.equal(*found)
    assert float(found[0].abs().min()) > 0


def test_it_costs_at_most_1_3_training_passes_of_the_images_it_looks_at() -> None:
    """Counted arithmetic on a ResNet, beside a forward and backward pass of x_ref and x."""
    net = build_classifier("resnet18-8", num_classes=5, image_shape=(3, 8, 8)).double().eval()
    batch, x_adv, x_ref, strategy = case()

    def flops(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    plain = flops(lambda: tied_outcome(net, batch, x_ref).sum().backward())
    tied = tied_outcome(net, batch, x_ref)  # the reward's own forward passes
    task = task_of("pgd-at", batch, x_adv, strategy)
    extra = flops(lambda: influence(net, task, tied, LOSS, ProcessGroup()))
    assert 0.9 < extra / plain <= 1.3


def test_influence_leaves_mode_gradients_and_statistics_alone() -> None:
    net, (batch, x_adv, x_ref, strategy) = smooth_net(nn.BatchNorm2d(8)).train(), case()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    influence_on(net, task_of("trades", batch, x_adv, strategy), x_ref)
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_reward_is_l1_and_influence_each_standardized() -> None:
    l1, effect = torch.randn(2, 8, dtype=torch.float64)
    right = torch.ones(8, dtype=torch.bool)
    terms = RewardTerms(l1=l1, l2=l1, l3=l1, ref_correct=right, clean_correct=right)
    config = dataclasses.replace(CONFIG, l1_weight=0.3)
    reward = combine(terms, config, 8, ProcessGroup(), effect)

    def unit(column: Tensor) -> Tensor:
        return (column - column.mean()) / column.std(correction=0)

    torch.testing.assert_close(reward, 0.3 * unit(l1) + unit(effect), rtol=0, atol=1e-6)
