"""L1, L2, L3 and their sum: the published code's numbers to 1e-10, and the options by hand."""

import dataclasses

import pytest
import torch

from lasat_ray.config import LossConfig, RewardConfig
from lasat_ray.methods import METHODS
from lasat_ray.models import batch_norm_buffers, build_classifier
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.types import RewardTerms
from lasat_ray.update.reward import combine, reference_images, reference_starts, reward_terms, standardized
from lasat_ray.update.task import Task, plain_step
from tests.support.golden_nets import load_tiny
from tests.support.helpers import attacked, close, golden, make_batch, strategy_of

WORLD = ProcessGroup()


@pytest.fixture(scope="module")
def case():
    return golden("las_reward")


def net_of(case, prefix="net."):
    return load_tiny({name: case[name].numpy() for name in case if name.startswith(prefix)}, prefix)


def batch_and_strategy(case):
    strategy = strategy_of(case["epsilon_255"].double() / 255, case["iters"], case["step_255"].double() / 255)
    return make_batch(case["x"], case["y"]), strategy


def step(case, **settings):
    """The looked-ahead net from the stored adversarial images."""
    batch, strategy = batch_and_strategy(case)
    net = net_of(case)
    loss = LossConfig(label_smoothing=settings.pop("label_smoothing"))
    task = Task(method=METHODS["pgd-at"], attacked=attacked(batch, case["x_adv"], strategy))
    return plain_step(net, task, loss, lr=case["lr"], group=WORLD, **settings)


def reference_config(case, **changes):
    config = RewardConfig(
        mode="reference",
        credit="batch",
        alpha=case["b"],
        beta=case["c"],
        l1_weight=case["a"],
        ref_eps=case["pgd_eps"],
        ref_num_steps=case["pgd_iters"],
        ref_step_size=case["pgd_step"],
        r2_factor=case["R2_param"],
        r3_factor=case["R3_param"],
    )
    return dataclasses.replace(config, **changes)


def terms_of(case, config, restarts, looked_ahead):
    batch, strategy = batch_and_strategy(case)
    starts = [torch.clamp(start, -batch.x, 1 - batch.x) for start in case["pgd_init"][:restarts]]
    x_ref = reference_images(looked_ahead, batch, config, starts)
    task = Task(method=METHODS["pgd-at"], attacked=attacked(batch, case["x_adv"], strategy))
    l1 = task.loss_of(net_of(case), LossConfig()).detach()
    return x_ref, reward_terms(looked_ahead, batch, x_ref, l1)


def test_lookahead_with_smoothing_and_decay_is_the_published_codes(case):
    net = step(case, label_smoothing=1 - case["label_factor"], weight_decay=case["weight_decay"])
    for name, parameter in net.named_parameters():
        close(parameter.detach(), case[f"lookahead.{name}"])


def test_lookahead_plain_is_the_papers_single_step(case):
    net = step(case, label_smoothing=0.0, weight_decay=0.0)
    for name, parameter in net.named_parameters():
        close(parameter.detach(), case[f"lookahead_plain.{name}"])


@pytest.mark.parametrize(("restarts", "name"), [(1, "1restart"), (2, "2restarts")])
def test_reward_of_the_published_code(case, restarts, name):
    looked_ahead = step(case, label_smoothing=1 - case["label_factor"], weight_decay=case["weight_decay"])
    config = reference_config(case)
    x_ref, terms = terms_of(case, config, restarts, looked_ahead)
    close(x_ref - case["x"], case[f"pgd_delta_{name}"])
    close(terms.l1, case["L1_per_sample"])
    close(terms.l2, case[f"L2_per_sample_{name}"])
    close(terms.l3, case["L3_per_sample"])
    reward_B = combine(terms, config, 16, WORLD)
    close(reward_B, torch.full((16,), case[f"reward_{name}"], dtype=torch.float64))
    for weights, key in [((1.0, 0.0, 0.0), "R1"), ((0.0, 1.0, 0.0), f"R2_{name}"), ((0.0, 0.0, 1.0), "R3")]:
        only = dict(zip(("l1_weight", "alpha", "beta"), weights, strict=True))
        alone = combine(terms, dataclasses.replace(config, **only), 16, WORLD)
        close(alone[0], torch.tensor(case[key], dtype=torch.float64))


@pytest.mark.parametrize(
    ("mode", "moves", "key"),
    [
        ("reference", "mode", "pgd_delta_1restart"),
        ("reference", "all", "pgd_plain_delta_1restart"),  # as the published LAS-AWP
        ("paper", "mode", "pgd_plain_delta_1restart"),
        ("paper", "correct", "pgd_delta_1restart"),
    ],
)
def test_who_moves_in_the_reference_attack_is_a_choice_of_its_own(case, mode, moves, key):
    looked_ahead = step(case, label_smoothing=1 - case["label_factor"], weight_decay=case["weight_decay"])
    config = reference_config(case, mode=mode, ref_moves=moves)
    x_ref, _ = terms_of(case, config, 1, looked_ahead)
    close(x_ref - case["x"], case[key])


def test_reward_of_the_paper_attacks_every_image(case):
    looked_ahead = net_of(case, "lookahead.")
    config = reference_config(case, mode="paper", credit="image", alpha=0.7, beta=0.3)
    x_ref, terms = terms_of(case, config, 1, looked_ahead)
    close(x_ref - case["x"], case["pgd_plain_delta_1restart"])
    close(terms.l2, case["L2_per_sample_plain_1restart"])
    expected = (
        case["L1_per_sample"] + 0.7 * case["L2_per_sample_plain_1restart"] + 0.3 * case["L3_per_sample"]
    )
    close(combine(terms, config, 16, WORLD), expected)
    batch_config = dataclasses.replace(config, credit="batch")
    close(combine(terms, batch_config, 16, WORLD), expected.mean().expand(16))


def random_terms(count=9, seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    l1, l2, l3 = scale * torch.randn(3, count, generator=g, dtype=torch.float64)
    right = torch.rand(2, count, generator=g) < 0.6
    return RewardTerms(l1=l1, l2=l2, l3=l3, ref_correct=right[0], clean_correct=right[1])


def test_reference_mode_clips_each_term():
    config = RewardConfig(mode="reference", credit="batch", clamp=1.5, r2_factor=4.0, r3_factor=2.0)
    terms = random_terms()
    ref, clean = (float(t.double().mean()) for t in (terms.ref_correct, terms.clean_correct))
    low = dataclasses.replace(terms, l1=terms.l1 - 100)
    expected = 0.0 + min(4 * ref, 1.5) + min(2 * clean, 1.5)
    close(combine(low, config, 9, WORLD), torch.full((9,), expected, dtype=torch.float64))
    high = dataclasses.replace(terms, l1=terms.l1 + 100)
    close(combine(high, config, 9, WORLD), torch.full((9,), expected + 1.5, dtype=torch.float64))


def test_standardized_terms_have_mean_0_and_deviation_1():
    terms = random_terms(50)
    columns = torch.stack([terms.l1 * 1e-3 + 1e6, terms.l2 * 1e3, terms.l3], 1)
    out = standardized(columns, 50, WORLD)
    close(out.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-6)
    close(out.std(0, correction=0), torch.ones(3, dtype=torch.float64), atol=1e-4)
    constant = standardized(torch.full((5, 1), 3.0, dtype=torch.float64), 5, WORLD)
    close(constant, torch.zeros(5, 1, dtype=torch.float64))


def test_standardizing_comes_before_weighting():
    terms = random_terms(20)
    config = RewardConfig(standardize=True, alpha=2.0, beta=0.5, l1_weight=3.0)
    z = [(t - t.mean()) / t.std(correction=0) for t in (terms.l1, terms.l2, terms.l3)]
    close(combine(terms, config, 20, WORLD), 3 * z[0] + 2 * z[1] + 0.5 * z[2], atol=1e-7)


def test_terms_are_spoken_in_eval_mode_and_leave_the_net_alone():
    torch.manual_seed(0)
    net = build_classifier("small_cnn_bn", num_classes=4, image_shape=(1, 8, 8), precision="fp64").train()
    for buffer in batch_norm_buffers(net):
        buffer.mul_(0.5)  # no longer what a batch would give
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    y = torch.arange(6) % 4
    state = {k: v.clone() for k, v in net.state_dict().items()}
    terms = reward_terms(net, make_batch(x, y), (x + 0.1).clamp(0, 1), torch.zeros(6))
    assert net.training and all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    with torch.no_grad():
        net.eval()
        ref, clean = net((x + 0.1).clamp(0, 1)), net(x)
    close(terms.l2, ref.log_softmax(1)[torch.arange(6), y])
    close(terms.l3, clean.log_softmax(1)[torch.arange(6), y])
    assert torch.equal(terms.ref_correct, ref.argmax(1) == y)
    assert torch.equal(terms.clean_correct, clean.argmax(1) == y)
    assert not terms.l2.requires_grad


def test_each_restart_has_a_start_of_its_own_in_the_reference_ball():
    x = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    batch = make_batch(x, torch.zeros(5, dtype=torch.int64))
    config = RewardConfig(ref_eps=0.1, ref_restarts=3)
    starts = reference_starts(batch, config, RandomKey.of(0, "t"))
    assert len(starts) == 3
    for delta in starts:
        assert 0.05 < delta.abs().max() <= 0.1
        assert (x + delta).min() >= 0 and (x + delta).max() <= 1
    assert not torch.equal(starts[0], starts[1]) and not torch.equal(starts[1], starts[2])
    (alone,) = reference_starts(batch, dataclasses.replace(config, ref_restarts=1), RandomKey.of(0, "t"))
    assert torch.equal(alone, starts[0])
