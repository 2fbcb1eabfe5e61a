"""Restarts and directions of an attack, each image's own, against attacks made one by one."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.attacks import attack_batch
from lasat_ray.attacks.ball import start
from lasat_ray.config import grid_of
from lasat_ray.config.units import ATTACK_LOSSES, parse_grid
from lasat_ray.models import build_classifier
from lasat_ray.rng import RandomKey
from lasat_ray.training.round import play_round
from lasat_ray.types import Strategy
from lasat_ray.update.cost import expected_steps, image_passes
from tests.support.helpers import make_batch, small_config
from tests.support.method_runs import trainer_in
from tests.test_cost_model import B, Passes, make_round

F64 = torch.float64
EPS, STEP = 0.2, 0.07
KEY = RandomKey.of(0, "t")
RESTARTS = torch.tensor([1, 3, 2, 1, 4, 2])
STEPS = torch.tensor([3, 2, 4, 1, 2, 3])


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_classifier("small_cnn", num_classes=4, image_shape=(3, 8, 8)).double().eval()


def case(**fields):
    x = torch.rand(6, 3, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(1))
    full = torch.ones(6, dtype=F64)
    strategy = Strategy(eps=EPS * full, num_steps=STEPS, step_size=STEP * full, **fields)
    return make_batch(x, torch.arange(6) % 4), strategy


def attacked(net, batch, strategy, loss="ce", norm="linf"):
    return attack_batch(net, batch, strategy, KEY, loss=loss, start_kind="uniform", norm=norm)


def by_hand(net, x, y, delta, steps, along=False):
    """PGD of one image [3,8,8] from ``delta``: what it finds, and its cross-entropy."""
    for _ in range(steps):
        delta = delta.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(F.cross_entropy(net((x + delta)[None]), y[None]), delta)
        move = grad.sign()
        if along:
            move = torch.stack([g * (64**0.5) / g.pow(2).sum().sqrt() for g in grad])
        delta = (delta.detach() + STEP * move).clamp(-EPS, EPS)
        delta = (x + delta).clamp(0, 1) - x
    delta = delta.detach()
    with torch.no_grad():
        return x + delta, float(F.cross_entropy(net((x + delta)[None]), y[None]))


def starts_of(batch, n):
    radius, index = torch.full((1,), EPS, dtype=F64), batch.index[n : n + 1]
    keys = [KEY, *(KEY.fold_in("restart", j) for j in range(1, int(RESTARTS[n])))]
    return [start("uniform", batch.x[n : n + 1], radius, index, key)[0] for key in keys]


def test_every_image_keeps_the_worst_of_its_own_restarts(net):
    batch, strategy = case(restarts=RESTARTS)
    x_adv, later = attacked(net, batch, strategy), 0
    for n in range(6):
        runs = [by_hand(net, batch.x[n], batch.y[n], delta, int(STEPS[n])) for delta in starts_of(batch, n)]
        losses = [loss for _, loss in runs]
        best = losses.index(max(losses))
        later += best > 0
        torch.testing.assert_close(x_adv[n], runs[best][0], rtol=0, atol=1e-12)
    assert later  # some image was served by another start than its first


@pytest.mark.parametrize(("loss", "norm"), [("ce", "linf"), ("kl", "linf"), ("margin", "l2")])
def test_a_batch_with_restarts_equals_its_images_one_by_one(net, loss, norm):
    batch, strategy = case(restarts=RESTARTS)
    together = attacked(net, batch, strategy, loss, norm)
    size = (together - batch.x).flatten(1)
    size = size.abs().amax(1) if norm == "linf" else size.norm(dim=1)
    assert (size <= EPS + 1e-9).all()
    for n in range(6):
        row = slice(n, n + 1)
        one = make_batch(batch.x[row], batch.y[row])
        one = dataclasses.replace(one, index=batch.index[row])
        alone = attacked(net, one, strategy[row], loss, norm)
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-12)


def test_one_restart_is_the_attack_as_it_was(net):
    batch, strategy = case()
    plain = attacked(net, batch, strategy)
    once = attacked(net, batch, dataclasses.replace(strategy, restarts=torch.ones(6, dtype=torch.int64)))
    assert torch.equal(plain, once)


def test_every_image_steps_in_its_own_direction(net):
    direction = torch.tensor([0, 1, 1, 0, 1, 0])
    batch, strategy = case(direction=direction)
    x_adv = attacked(net, batch, strategy)
    for n in range(6):
        delta = start(
            "uniform", batch.x[n : n + 1], torch.full((1,), EPS, dtype=F64), batch.index[n : n + 1], KEY
        )
        wanted, _ = by_hand(net, batch.x[n], batch.y[n], delta[0], int(STEPS[n]), along=bool(direction[n]))
        torch.testing.assert_close(x_adv[n], wanted, rtol=0, atol=1e-12)


def test_a_gradient_of_zero_moves_nothing():
    batch, strategy = case(direction=torch.ones(6, dtype=torch.int64))
    still = attacked(deaf(), batch, strategy)
    torch.testing.assert_close(still, batch.x + first_delta(batch), rtol=0, atol=1e-12)


def first_delta(batch):
    return start("uniform", batch.x, torch.full((6,), EPS, dtype=F64), batch.index, KEY)


def deaf():
    """The same logits whatever the image."""

    class Deaf(torch.nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1)[:, :4]

    return Deaf()


GRIDS = {
    "plain": {"num_steps": (2.0, 3.0)},
    "one start": {"num_steps": (2.0, 3.0), "restarts": (1.0,)},
    "signs alone": {"num_steps": (2.0, 3.0), "direction": (0.0,)},
}


def passes_of(grid, **changes):
    env, learner = make_round(attack__grid=grid, update_interval=50, **changes)
    play_round(env, learner)
    with Passes() as passes:
        played = env.play(learner.act(env.batch.x, env.batch.index, RandomKey.of(3)).index)
    return passes.per_net, played, env


@pytest.mark.parametrize("grid", GRIDS)
def test_a_field_that_nobody_uses_costs_no_pass(grid):
    (forward, back, _), played, env = passes_of(GRIDS[grid])
    steps = int(played.attacked.strategy.num_steps.sum())
    # the attack's steps, one training pass, and a look of the strategy net before it
    assert (forward, back) == (steps + B + B, steps + B)
    assert float(image_passes(env.config, played.attacked, 0).sum()) == 2 * steps + 3 * B


@pytest.mark.parametrize(
    "grid",
    [
        {"num_steps": (2.0, 3.0), "restarts": (1.0, 2.0, 3.0)},
        {"num_steps": (2.0, 3.0), "attack_loss": (0.0, 1.0, 3.0)},
        {"num_steps": (1.0, 3.0), "restarts": (2.0, 3.0), "attack_loss": (1.0, 2.0)},
    ],
)
def test_restarts_and_looks_are_counted_as_they_were_made(grid):
    (forward, back, _), played, env = passes_of(grid)
    strategy, none = played.attacked.strategy, torch.zeros(B, dtype=torch.int64)
    restarts = torch.ones_like(none) if strategy.restarts is None else strategy.restarts
    loss = none if strategy.attack_loss is None else strategy.attack_loss
    looks = restarts * (restarts > 1) + ((loss == 1) | (loss == 3))
    steps = strategy.num_steps * restarts
    assert (forward, back) == (int((steps + looks).sum()) + 2 * B, int(steps.sum()) + B)
    counted = image_passes(env.config, played.attacked, 0)
    torch.testing.assert_close(counted, (2 * steps + looks + 3).to(counted))


def test_expected_cost_is_the_mean_over_the_grid():
    grid = parse_grid("num_steps=2,4 restarts=1,3 attack_loss=ce,kl")
    wanted = sum(
        steps * starts + (starts * (starts > 1) + kl) / 2
        for steps in (2, 4)
        for starts in (1, 3)
        for kl in (0, 1)
    )
    assert expected_steps(grid) == wanted / 8
    assert grid["attack_loss"] == (0.0, float(ATTACK_LOSSES.index("kl")))


def test_the_settings_say_it_for_all_and_a_learned_strategy_for_each(tmp_path):
    assert not {"restarts", "direction"} & set(grid_of(small_config(strategy="fixed")))
    fixed = grid_of(small_config(strategy="fixed", attack__restarts=2, attack__direction="gradient"))
    assert (fixed["restarts"], fixed["direction"]) == ((2.0,), (1.0,))
    grid = {"num_steps": (1.0, 3.0), "restarts": (1.0, 2.0), "direction": (0.0, 1.0)}
    summary = trainer_in(tmp_path / "run", small_config(attack__grid=grid, epochs=1)).run()
    assert summary["rounds"] == 3
