"""What every attack promises: each image in its own ball, on its own, at its own cost."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lasat_ray.attacks import attack_batch, constant_strategy, worst_of_restarts
from lasat_ray.attacks.ball import project, start
from lasat_ray.attacks.objectives import cross_entropy, kl_divergence, make_objective, margin
from lasat_ray.attacks.pgd import Rule, pgd
from lasat_ray.config import grid_of
from lasat_ray.config.units import ATTACK_LOSSES
from lasat_ray.models import batch_norm_buffers, build_classifier
from lasat_ray.rng import RandomKey
from tests.support.golden_nets import TinyNet
from tests.support.helpers import (
    Counted,
    close,
    make_batch,
    make_game,
    plain_pgd,
    small_config,
    strategy_of,
)

LOSSES = ("ce", "kl", "margin")
STARTS = ("uniform", "normal", "zero")
STREAM = RandomKey.of(0, "test")


def tiny_net(dtype=torch.float64, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyNet(6, 5).to(dtype)


def random_case(seed, count=7, dtype=torch.float64, side=5, most_steps=6):
    """Images, some pixels exactly 0 or 1, labels, and a strategy of their own for each."""
    g = torch.Generator().manual_seed(seed)
    x = (torch.rand(count, 3, side, side, generator=g, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)
    y = torch.randint(0, 5, (count,), generator=g)
    eps = torch.rand(count, generator=g, dtype=torch.float64) * 0.3
    step = torch.rand(count, generator=g, dtype=torch.float64) * 0.2
    steps = torch.randint(1, most_steps + 1, (count,), generator=g)
    batch = make_batch(x.to(dtype), y, torch.randperm(1000, generator=g)[:count])
    return batch, strategy_of(eps.to(dtype), steps, step.to(dtype))


def rows_of(batch, rows):
    return make_batch(batch.x[rows], batch.y[rows], batch.index[rows])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    loss=st.sampled_from(LOSSES),
    kind=st.sampled_from(STARTS),
    radius=st.sampled_from([None, 0.0, 0.5]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_x_adv_stays_in_its_own_ball_and_in_the_pixel_range(seed, loss, kind, radius, dtype):
    batch, strategy = random_case(seed, dtype=dtype)
    more = {} if radius is None else {"start_radius": torch.full_like(strategy.eps, radius)}
    strategy = strategy_of(**dict(strategy.items()), **more)
    x_adv = attack_batch(tiny_net(dtype), batch, strategy, STREAM, loss=loss, start_kind=kind)
    size_B = (x_adv - batch.x).abs().amax((1, 2, 3))
    assert (size_B <= strategy.eps + 1e-7).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert x_adv.dtype == dtype and not x_adv.requires_grad


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), restarts=st.integers(1, 3), only_correct=st.booleans())
def test_the_worst_of_restarts_stays_in_the_ball(seed, restarts, only_correct):
    batch, strategy = random_case(seed)
    starts = [
        start("uniform", batch.x, strategy.eps, batch.index, STREAM.fold_in(n)) for n in range(restarts)
    ]
    x_adv = worst_of_restarts(tiny_net(), batch, strategy, starts, only_correct=only_correct)
    assert ((x_adv - batch.x).abs().amax((1, 2, 3)) <= strategy.eps + 1e-12).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1


def test_each_image_raises_the_loss_its_strategy_names():
    batch, strategy = random_case(6)
    net, count = tiny_net(), len(batch.x)
    code_B = torch.arange(count) % len(ATTACK_LOSSES)
    mixed = strategy_of(**dict(strategy.items()), attack_loss=code_B)
    got = attack_batch(net, batch, mixed, STREAM, loss="ce", start_kind="uniform")
    for code, loss in enumerate(ATTACK_LOSSES):
        alone = attack_batch(net, batch, strategy, STREAM, loss=loss, start_kind="uniform")
        close(got[code_B == code], alone[code_B == code], atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(STARTS))
def test_a_euclidean_budget_bounds_the_length_and_the_steps_go_along_the_gradient(seed, kind):
    batch, strategy = random_case(seed)
    x_adv = attack_batch(tiny_net(), batch, strategy, STREAM, loss="ce", start_kind=kind, norm="l2")
    length_B = (x_adv - batch.x).flatten(1).norm(dim=1)
    # Without a step to project after, an uncut start (TRADES) may be as long as it was drawn.
    moved = strategy.num_steps > 0
    assert (length_B <= strategy.eps + 1e-7)[moved].all()
    assert x_adv[moved].min() >= 0 and x_adv[moved].max() <= 1


def test_one_euclidean_step_is_the_normalized_gradient():
    batch, strategy = random_case(8)
    batch = make_batch(batch.x.clamp(0.4, 0.6), batch.y, batch.index)
    eps, step = torch.full_like(strategy.eps, 0.3), torch.full_like(strategy.eps, 0.1)
    one = strategy_of(eps, torch.ones_like(strategy.num_steps), step)
    net = tiny_net()
    x_adv = attack_batch(net, batch, one, STREAM, loss="ce", start_kind="zero", norm="l2")
    x = batch.x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(net(x), batch.y, reduction="sum"), x)
    unit = grad / grad.flatten(1).norm(dim=1)[:, None, None, None]
    close(x_adv, batch.x + 0.1 * unit, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", STARTS)
def test_a_batch_is_attacked_as_its_images_one_by_one(loss, kind):
    batch, strategy = random_case(3)
    net = tiny_net()
    together = attack_batch(net, batch, strategy, STREAM, loss=loss, start_kind=kind)
    for n in range(len(batch.x)):
        row = torch.tensor([n])
        alone = attack_batch(net, rows_of(batch, row), strategy[row], STREAM, loss=loss, start_kind=kind)
        close(alone, together[row], atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_order_of_images_does_not_matter(loss):
    batch, strategy = random_case(4)
    order = torch.tensor([5, 2, 0, 6, 1, 4, 3])
    net = tiny_net()
    straight = attack_batch(net, batch, strategy, STREAM, loss=loss, start_kind="uniform")
    shuffled = attack_batch(
        net, rows_of(batch, order), strategy[order], STREAM, loss=loss, start_kind="uniform"
    )
    close(shuffled, straight[order], atol=1e-12)


def test_pgd_is_the_textbooks():
    batch, strategy = random_case(5)
    net = tiny_net()
    got = attack_batch(net, batch, strategy, STREAM, loss="ce", start_kind="uniform")
    delta0 = start("uniform", batch.x, strategy.eps, batch.index, STREAM)
    for n in range(len(batch.x)):
        s = strategy[n]
        want = plain_pgd(
            net, batch.x[n], batch.y[n], delta0[n], float(s.eps), float(s.step_size), int(s.num_steps)
        )
        close(got[n], want, atol=1e-12)


class Witness(nn.Module):
    """Names the images that pass by their brightness, which a small attack cannot change."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.passes = {}
        self.batches = []
        self.states = set()

    def forward(self, x):
        self.batches.append(x.mean((1, 2, 3)).mul(10).round().long().tolist())
        for value in self.batches[-1]:
            self.passes[value] = self.passes.get(value, 0) + 1
        self.states.add((self.training, any(p.requires_grad for p in self.parameters())))
        return self.net(x)


def witness_case():
    x = (torch.arange(1, 8).double() / 10).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
    steps = torch.tensor([3, 1, 7, 2, 2, 0, 5])
    full = torch.ones(7, dtype=torch.float64)
    return make_batch(x, torch.arange(7) % 5), strategy_of(full * 0.02, steps, full * 0.01), steps


@pytest.mark.parametrize(("loss", "extra"), [("ce", 0), ("margin", 0), ("kl", 1)])
def test_an_image_takes_part_in_exactly_its_own_steps(loss, extra):
    batch, strategy, steps = witness_case()
    witness = Witness(tiny_net()).train()
    attack_batch(witness, batch, strategy, STREAM, loss=loss, start_kind="uniform")
    expected = {n + 1: int(count) + extra for n, count in enumerate(steps) if int(count) + extra}
    assert witness.passes == expected


def test_passes_are_as_many_as_the_longest_attack_has_steps_and_of_one_size():
    """20 steps of six images in 7 passes: 3 a pass, 2 in the last; no image twice in one."""
    batch, strategy, _ = witness_case()
    witness = Witness(tiny_net())
    attack_batch(witness, batch, strategy, STREAM, loss="ce", start_kind="uniform")
    assert [len(rows) for rows in witness.batches] == [3, 3, 3, 3, 3, 3, 2]
    assert all(len(set(rows)) == len(rows) for rows in witness.batches)


def test_with_a_rule_all_images_start_together():
    batch, strategy, steps = witness_case()
    witness, seen = Witness(tiny_net()), []
    objective = make_objective("ce", witness, batch.x, batch.y)

    class Looks(Rule):
        def moves(self, state):
            seen.append((state.step, sorted(state.rows.tolist())))

    pgd(witness, batch.x, strategy, objective, delta0=torch.zeros_like(batch.x), rule=Looks())
    assert seen == [(step, [n for n in range(7) if steps[n] > step]) for step in range(7)]


def test_passes_forward_and_backward_are_counted_in_images():
    batch, strategy, steps = witness_case()
    counted = Counted(tiny_net())
    attack_batch(counted, batch, strategy, STREAM, loss="ce", start_kind="uniform")
    assert (counted.forwards, counted.input_backwards, counted.weight_backwards) == (
        steps.sum(),
        steps.sum(),
        0,
    )


def test_zero_steps_leave_the_image_at_its_start():
    batch, strategy, _ = witness_case()
    x_adv = attack_batch(tiny_net(), batch, strategy, STREAM, loss="ce", start_kind="zero")
    assert torch.equal(x_adv[5], batch.x[5])
    assert not torch.equal(x_adv[1], batch.x[1])


def test_the_net_is_frozen_inside_and_as_before_afterwards():
    batch, strategy, _ = witness_case()
    torch.manual_seed(0)
    net = build_classifier("small_cnn_bn", num_classes=5, image_shape=(3, 4, 4), precision="fp64").train()
    witness = Witness(net).train()
    stats = [buffer.clone() for buffer in net.state_dict().values()]
    attack_batch(witness, batch, strategy, STREAM, loss="kl", start_kind="normal")
    assert witness.states == {(False, False)}
    assert net.training and all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(stats, net.state_dict().values(), strict=True))
    assert batch_norm_buffers(net)


class LeftHalf(nn.Module):
    """Sees the left half of an image only: the other half's gradient is exactly zero."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 5, dtype=torch.float64)

    def forward(self, x):
        return self.fc((x * torch.tensor([1.0, 1.0, 0.0, 0.0])).mean((2, 3)))


def test_a_gradient_of_zero_moves_nothing():
    batch, strategy, _ = witness_case()
    x_adv = attack_batch(LeftHalf(), batch, strategy, STREAM, loss="ce", start_kind="uniform")
    delta0 = start("uniform", batch.x, strategy.eps, batch.index, STREAM)
    moved = x_adv - batch.x - delta0
    assert moved[..., 2:].abs().max() < 1e-15
    assert (moved[strategy.num_steps > 0][..., :2].abs() > 1e-3).any()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_attack_raises_its_own_objective(loss):
    batch, _ = random_case(7, count=16)
    net = tiny_net()
    strategy = constant_strategy(batch.x, eps=0.1, num_steps=10, step_size=0.02)
    objective = make_objective(loss, net, batch.x, batch.y)
    rows = torch.arange(16)
    with torch.no_grad():
        x0 = batch.x + start("uniform", batch.x, strategy.eps, batch.index, STREAM)
        before = objective(net(x0), rows)
        x_adv = attack_batch(net, batch, strategy, STREAM, loss=loss, start_kind="uniform")
        after = objective(net(x_adv), rows)
    assert (after > before).all() and (loss == "kl" or (after - before).mean() > 0.01)


def test_images_that_may_not_move_wait_where_they_are():
    batch, strategy = random_case(8)
    may_move = torch.tensor([True, False, True, False, True, False, True])
    objective = make_objective("ce", tiny_net(), batch.x, batch.y)
    zero = torch.zeros_like(batch.x)

    class Some(Rule):
        def moves(self, state):
            return may_move[state.rows]

    for stops in (False, True):
        Some.stops = stops
        x_adv = pgd(tiny_net(), batch.x, strategy, objective, delta0=zero, rule=Some())
        still = (x_adv == batch.x).all(3).all(2).all(1)
        assert still.tolist() == (~may_move).tolist()


def test_more_restarts_are_never_weaker():
    batch, strategy = random_case(9)
    net = tiny_net()
    starts = [start("uniform", batch.x, strategy.eps, batch.index, STREAM.fold_in(n)) for n in range(3)]

    def loss_of(some):
        x_adv = worst_of_restarts(net, batch, strategy, some, only_correct=False)
        return cross_entropy(net(x_adv), batch.y).detach()

    each = torch.stack([loss_of([one]) for one in starts])
    close(loss_of(starts), each.amax(0), atol=0)
    assert (each[0] != each.amax(0)).any()


def test_an_empty_share_is_attacked_to_nothing():
    batch, strategy = random_case(1)
    none = torch.zeros(0, dtype=torch.int64)
    x_adv = attack_batch(
        tiny_net(), rows_of(batch, none), strategy[none], STREAM, loss="ce", start_kind="uniform"
    )
    assert x_adv.shape == (0, 3, 5, 5)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_starts_depend_on_the_row_and_the_stream_alone(kind):
    x = torch.full((4, 1, 8, 8), 0.5, dtype=torch.float64)
    index = torch.tensor([4, 9, 4, 100])
    radius = torch.full((4,), 0.1, dtype=torch.float64)
    delta = start(kind, x, radius, index, STREAM)
    assert torch.equal(delta[0], delta[2]) and not torch.equal(delta[0], delta[1])
    assert torch.equal(start(kind, x[1:], radius[1:], index[1:], STREAM), delta[1:])
    assert not torch.equal(start(kind, x, radius, index, STREAM.fold_in(1)), delta)


def test_the_uniform_start_fills_its_radius_and_the_normal_one_has_deviation_a_thousandth():
    x = torch.full((64, 1, 16, 16), 0.5, dtype=torch.float64)
    radius = torch.linspace(0.01, 0.4, 64, dtype=torch.float64)
    uniform = start("uniform", x, radius, torch.arange(64), STREAM) / radius.view(-1, 1, 1, 1)
    assert uniform.abs().max() <= 1 and (uniform.abs().amax((1, 2, 3)) > 0.95).all()
    close(uniform.mean(), 0.0, atol=5 / (3 * uniform.numel()) ** 0.5)
    close(uniform.var(), 1 / 3, atol=0.01)
    normal = start("normal", x, radius, torch.arange(64), STREAM)
    close(normal.std(), 0.001, atol=3e-5)


def test_projection_clips_to_the_budget_then_to_the_pixels():
    x = torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0], dtype=torch.float64).view(5, 1, 1, 1)
    eps = torch.tensor(0.1, dtype=torch.float64)
    down, up = project(torch.full_like(x, -0.3), x, eps), project(torch.full_like(x, 0.3), x, eps)
    close(down.flatten(), torch.tensor([0.0, -0.05, -0.1, -0.1, -0.1], dtype=torch.float64))
    close(up.flatten(), torch.tensor([0.1, 0.1, 0.1, 0.05, 0.0], dtype=torch.float64))


def test_objectives_by_hand():
    logits = torch.tensor([[2.0, 1.0, 0.5], [0.0, 3.0, 3.5]], dtype=torch.float64)
    y = torch.tensor([0, 1])
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    close(cross_entropy(logits, y), -torch.stack([log_p[0, 0], log_p[1, 1]]))
    close(margin(logits, y), torch.tensor([-1.0, 0.5], dtype=torch.float64))
    other = torch.log_softmax(-logits, 1)
    by_hand = [sum(p.exp() * (p - q) for p, q in zip(log_p[n], other[n], strict=True)) for n in range(2)]
    close(kl_divergence(log_p, other), torch.stack(by_hand))


def test_of_equally_bad_restarts_the_later_counts():
    """As in the published code; it matters for images that no gradient reaches."""
    batch, _, _ = witness_case()
    strategy = constant_strategy(batch.x, eps=0.02, num_steps=1, step_size=0.01)
    starts = [torch.full_like(batch.x, value) for value in (0.01, -0.01)]
    net = LeftHalf()
    net.fc.weight.data.zero_()
    x_adv = worst_of_restarts(net, batch, strategy, starts, only_correct=False)
    close(x_adv, batch.x - 0.01, atol=1e-15)


def test_a_start_radius_of_the_settings_is_that_of_every_attack():
    """Beside a grid and without one; a grid that names it has the last word."""
    for strategy in ("fixed", "learned"):
        config = small_config(strategy=strategy, attack__start_radius=0.4)
        assert grid_of(config)["start_radius"] == (0.4,)
        env = make_game(config)
        chosen = env.space.decode(torch.zeros(len(env.batch.x), len(env.space.sizes), dtype=torch.int64))
        assert torch.equal(chosen.start_radius, torch.full_like(chosen.eps, 0.4))
    assert grid_of(small_config(attack__start_radius=0.4, attack__grid={"start_radius": (0.1, 0.2)}))[
        "start_radius"
    ] == (0.1, 0.2)
    assert "start_radius" not in grid_of(small_config())
