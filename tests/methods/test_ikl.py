"""IKL: values and gradients by hand, the class means that weigh it, and what its attack raises."""

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lasat_ray.attacks import objective_of
from lasat_ray.config import LossConfig
from lasat_ray.config.traits import TRAITS
from lasat_ray.env.build import build_round
from lasat_ray.methods import METHODS, AttackContext
from lasat_ray.methods.ikl import MEANS, ClassMeans, soft_cross_entropy, weighted_differences
from lasat_ray.process_group import ProcessGroup
from lasat_ray.training.round import play_round
from lasat_ray.types import Batch, Logits
from tests.support.helpers import CPU, close, inputs_of, make_images, small_config, strategy_of

F64 = torch.float64
B, N = 6, 5
ALONE = ProcessGroup()
CONFIG = LossConfig(trades_beta=2.5, ikl_alpha=8.0)


def numbers(seed=0):
    g = torch.Generator().manual_seed(seed)
    clean, adv = torch.randn(2, B, N, generator=g, dtype=F64)
    means = torch.rand(N, N, generator=g, dtype=F64).softmax(1)
    return clean, adv, means, torch.arange(B) % N


def inputs(clean, adv, means, y, **strategy):
    ones = torch.ones(B, dtype=F64)
    made = inputs_of(y, strategy_of(ones, ones.long(), ones, **strategy), CONFIG, adv=adv, clean=clean)
    return dataclasses.replace(made, memory={} if means is None else {MEANS: means})


def by_hand(clean, adv, weight, y, alpha, beta, soft):
    """Equation 10 as it is written, pair by pair; ``soft``: the label of the cross-entropy."""
    total = torch.zeros(B, dtype=F64)
    for n, j, k in itertools.product(range(B), range(N), range(N)):
        difference = (clean[n, j] - clean[n, k]) - (adv[n, j] - adv[n, k])
        total[n] = total[n] + alpha / 4 * weight[n, j] * weight[n, k] * difference**2
    ce = -(soft * (adv - adv.logsumexp(1, keepdim=True))).sum(1)
    return F.cross_entropy(clean, y, reduction="none") + total + beta * ce


@pytest.mark.parametrize("first_epoch", [True, False])
def test_the_loss_is_equation_10(first_epoch):
    clean, adv, means, y = numbers()
    weight = torch.full((B, N), 1 / N, dtype=F64) if first_epoch else means[y]
    loss = METHODS["ikl"].loss(inputs(clean, adv, None if first_epoch else means, y))
    close(loss, by_hand(clean, adv, weight, y, 8.0, 2.5, clean.softmax(1)))


def test_each_image_has_its_own_beta():
    clean, adv, means, y = numbers()
    beta = torch.linspace(1, 9, B, dtype=F64)
    loss = METHODS["ikl"].loss(inputs(clean, adv, means, y, trades_beta=beta))
    close(loss, by_hand(clean, adv, means[y], y, 8.0, beta, clean.softmax(1)))


def test_gradients_are_those_of_finite_differences():
    """Of both logits, where the label of the cross-entropy stays what it is."""
    clean, adv, means, y = numbers(1)
    soft, step = clean.softmax(1), 1e-6
    for place, value in enumerate((clean, adv)):
        free = [clean.clone(), adv.clone()]
        free[place].requires_grad_(True)
        loss = METHODS["ikl"].loss(inputs(*free, means, y)).sum()
        (grad,) = torch.autograd.grad(loss, free[place])
        for n, j in itertools.product(range(B), range(N)):
            ends = []
            for sign in (1, -1):
                moved = [clean, adv]
                moved[place] = value.clone()
                moved[place][n, j] += sign * step
                ends.append(by_hand(*moved, means[y], y, 8.0, 2.5, soft)[n])
            close(grad[n, j], (ends[0] - ends[1]) / (2 * step), atol=1e-7)


def test_gradients_are_those_of_their_formulas():
    """d/do_j of the double sum is alpha sum_k w_j w_k (d_j - d_k), d = o - o'; that of o' is its negative."""
    clean, adv, means, y = numbers(4)
    free = [clean.clone().requires_grad_(True), adv.clone().requires_grad_(True)]
    beta = torch.linspace(1, 9, B, dtype=F64)
    loss = METHODS["ikl"].loss(inputs(*free, means, y, trades_beta=beta)).sum()
    found = torch.autograd.grad(loss, free)
    weight, moved = means[y], clean - adv
    squares = torch.zeros(B, N, dtype=F64)
    for n, j, k in itertools.product(range(B), range(N), range(N)):
        squares[n, j] += 8.0 * weight[n, j] * weight[n, k] * (moved[n, j] - moved[n, k])
    close(found[0], clean.softmax(1) - F.one_hot(y, N) + squares)
    close(found[1], -squares + beta[:, None] * (adv.softmax(1) - clean.softmax(1)))


def test_decoupled_kl_has_the_gradient_of_kl():
    """Theorem 1: the image's own prediction as weight, alpha = beta = 1, the adversarial side of the
    squared error held constant."""
    clean, adv, _, _ = numbers(2)
    clean.requires_grad_(True), adv.requires_grad_(True)
    kl = F.kl_div(adv.log_softmax(1), clean.softmax(1), reduction="sum")
    decoupled = weighted_differences(clean, adv.detach(), clean.detach().softmax(1)).sum()
    decoupled = decoupled + soft_cross_entropy(clean, adv).sum()
    found, wanted = (torch.autograd.grad(value, (clean, adv)) for value in (decoupled, kl))
    close(found[0], wanted[0])
    close(found[1], wanted[1])


def batch_of(y, **more):
    g = torch.Generator().manual_seed(5)
    x = torch.rand(len(y), 1, 1, N, generator=g, dtype=F64)
    return Batch(x=x, y=y, index=torch.arange(len(y)), global_size=len(y), **more)


def test_the_attack_raises_both_parts():
    _, adv, means, y = numbers(3)
    net = nn.Flatten()
    context = AttackContext(
        batch=batch_of(y),
        strategy=None,
        key=None,
        config=CONFIG,
        epoch=1,
        epochs=2,
        strength=0,
        group=ALONE,
        memory={MEANS: means},
    )
    method = METHODS["ikl"]
    assert method.raised(context, "ce") == "ce" and TRAITS["ikl"].attack_loss == "own"
    batch = batch_of(y)
    rows = torch.tensor([4, 1])
    found = objective_of(method.raised(context), net, batch)(adv[rows], rows)
    seen = batch.x.flatten(1)

    def raised(weight):
        whole = by_hand(seen, adv, weight, y, 1.0, 1.0, seen.softmax(1))
        return whole - F.cross_entropy(seen, y, reduction="none")

    close(found, raised(means[y])[rows])
    other, share = y.flip(0), torch.linspace(0, 1, B, dtype=F64)
    mixed = batch_of(y, y_other=other, share=share)
    found = objective_of(method.raised(context), net, mixed)(adv, slice(None))
    close(found, share * raised(means[y]) + (1 - share) * raised(means[other]))


def test_class_means_are_of_the_epoch_before():
    g = torch.Generator().manual_seed(0)
    first, second, third = torch.randn(3, 4, 3, dtype=F64, generator=g)
    y = torch.tensor([0, 0, 1, 1])  # nobody of class 2
    memory = ClassMeans(LossConfig(ikl_temperature=4.0))
    for clean in (first, second):
        assert memory.tensors(0) == {}
        memory.learn(batch_of(y), Logits(adv=clean, clean=clean), ALONE)
    means = memory.tensors(1)[MEANS]
    p = torch.cat([first, second]).div(4).softmax(1)
    close(means[0], p[[0, 1, 4, 5]].mean(0))
    close(means[1], p[[2, 3, 6, 7]].mean(0))
    close(means[2], torch.full((3,), 1 / 3, dtype=F64))
    memory.learn(batch_of(torch.full((4,), 2)), Logits(adv=third, clean=third), ALONE)
    close(memory.tensors(1)[MEANS], means)
    later = memory.tensors(2)[MEANS]
    close(later[:2], means[:2])  # not seen: what it had
    close(later[2], third.div(4).softmax(1).mean(0))


def test_mixed_labels_are_shared_between_classes():
    clean = torch.randn(2, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    memory = ClassMeans(LossConfig())
    share = torch.tensor([0.75, 1.0], dtype=F64)
    batch = batch_of(torch.tensor([0, 0]), y_other=torch.tensor([1, 2]), share=share)
    memory.learn(batch, Logits(adv=clean, clean=clean), ALONE)
    p = clean.div(4).softmax(1)
    close(memory.sums, torch.stack([0.75 * p[0] + p[1], 0.25 * p[0], 0 * p[0]]))


def test_attack_and_loss_of_a_round_read_the_same_means():
    """Two epochs of a run: from the second on the means are those of the first, in attack and loss."""
    config = small_config(method="ikl", precision="fp64", batch_size=16, strategy="fixed")
    env, learner = build_round(config, make_images(48), 4, group=ALONE, device=CPU)
    for _ in range(env.target.rounds_per_epoch):
        assert env.target.remembered(env.round) == {}
        play_round(env, learner)
    means = env.target.remembered(env.round)[MEANS]
    close(means.sum(1), torch.ones(4, dtype=F64))
    strategy = env.space.decode(torch.zeros(16, 3, dtype=torch.int64))
    assert env._attack_context(strategy, None).memory[MEANS] is means
    assert env.target.task(env.attack_as_chosen(strategy)).memory[MEANS] is means
