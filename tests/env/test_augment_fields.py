"""Strengths of augmentation as fields of the strategy: what is attacked and trained on, and what is paid."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.data.strength import augmented
from lasat_ray.env.build import build_round
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.training.inputs import load_config_dataset
from lasat_ray.training.round import play_round
from lasat_ray.update.cost import image_passes
from tests.support.helpers import CPU, close, make_images, plain_pgd, small_config

F64 = torch.float64
GRID = {"num_steps": (2.0,), "augmix": (0.0, 0.4, 1.0), "erasing": (0.0, 0.25, 0.5)}
SMALL = {"precision": "fp64", "batch_size": 12, "attack__grid": GRID, "attack__start": "zero"}


def a_round(shape=(3, 8, 8), **changes):
    config = small_config(**{**SMALL, **changes})
    return build_round(config, make_images(48, shape), 4, group=ProcessGroup(), device=CPU)


def actions_for(env):
    generator = torch.Generator().manual_seed(1)
    return torch.stack([torch.randint(n, (env.num_envs,), generator=generator) for n in env.space.sizes], 1)


def varied(env, action):
    """The present batch as its strategies vary it."""
    key = RandomKey.of(env.seed, "augment by strategy", env.round)
    return augmented(env.batch, env.space.decode(action), key)


def cross_entropy(net, x, y):
    with torch.no_grad():
        return F.cross_entropy(net(x), y, reduction="none")


@pytest.mark.parametrize("lookahead", ["real", "copy"])
def test_the_attack_is_on_the_varied_image_and_the_reward_on_the_one_that_came(lookahead):
    env, _ = a_round(reward__lookahead=lookahead, optim__momentum=0.0, optim__weight_decay=0.0)
    action, seen, config = actions_for(env), env.batch, env.config
    images, net, rate = varied(env, action).x, copy.deepcopy(env.net).eval(), env.target.rate(env.round)
    chosen = env.space.decode(action)
    assert (images != seen.x).flatten(1).any(1).sum() >= 6 and (images == seen.x).flatten(1).all(1).any()
    x_adv = torch.stack(
        [
            plain_pgd(net, x, y, torch.zeros_like(x), float(eps), float(size), 2)
            for x, y, eps, size in zip(images, seen.y, chosen.eps, chosen.step_size, strict=True)
        ]
    )
    _, reward, *_, info = env.step(action)
    close(info["x_adv"], x_adv)
    assert torch.equal(info["final_obs"], seen.x)
    close(info["l1"], cross_entropy(net, x_adv, seen.y))
    F.cross_entropy(net(x_adv), seen.y).backward()  # no BatchNorm: train mode is eval mode
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(rate * parameter.grad)
    noise = 2 * RandomKey.of(0, "reference start", 0).uniform(seen.index, (3, 8, 8), F64) - 1
    starts = torch.clamp(noise * config.reward.ref_eps, -seen.x, 1 - seen.x)
    x_ref = torch.stack(
        [
            plain_pgd(net, x, y, delta, config.reward.ref_eps, config.reward.ref_step_size, 2)
            for x, y, delta in zip(seen.x, seen.y, starts, strict=True)
        ]
    )
    close(info["l2"], -cross_entropy(net, x_ref, seen.y))
    close(info["l3"], -cross_entropy(net, seen.x, seen.y))
    total = config.reward.l1_weight * info["l1"] + config.reward.alpha * info["l2"]
    close(reward, total + config.reward.beta * info["l3"])


@pytest.mark.parametrize("method", ["trades", "adr", "te"])
def test_methods_compare_with_the_varied_image(method):
    env, learner = a_round(method=method, loss__te_epochs=(1.0, 2.0))
    action = actions_for(env)
    images = varied(env, action).x
    played = env.play(action)
    assert torch.equal(played.attacked.batch.x, images)
    eps = played.attacked.strategy.eps[:, None, None, None]
    assert ((played.attacked.x_adv - images).abs() <= eps + 1e-12).all()
    play_round(env, learner)


def test_the_influence_of_an_image_is_that_of_the_image_as_it_was_varied():
    """Against a second look-ahead in which one image counts a little less."""
    changes = {"reward__credit": "influence", "reward__standardize": True, "strategy_model": "small_cnn"}
    plain = {"optim__momentum": 0.0, "optim__weight_decay": 0.0, "optim__lr": 1e-4}
    env, _ = a_round(**changes, **plain)
    action, seen, before = actions_for(env), env.batch, copy.deepcopy(env.net)
    images, rate, config = varied(env, action).x, env.target.rate(env.round), env.config.reward
    played = env.play(action)
    attacked = played.attacked
    assert torch.equal(attacked.batch.x, images)

    def outcome(net, x_ref):
        terms = config.alpha * cross_entropy(net, x_ref, seen.y) + config.beta * cross_entropy(
            net, seen.x, seen.y
        )
        return -terms.mean()

    def stepped(n, weight):
        net = copy.deepcopy(before)
        loss = F.cross_entropy(net(attacked.x_adv), seen.y, reduction="none")
        weights = torch.ones(12, dtype=F64)
        weights[n] = weight
        (weights * loss).mean().backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.sub_(rate * parameter.grad)
        return net

    noise = 2 * RandomKey.of(0, "reference start", 0).uniform(seen.index, (3, 8, 8), F64) - 1
    starts = torch.clamp(noise * config.ref_eps, -seen.x, 1 - seen.x)
    x_ref = torch.stack(
        [
            plain_pgd(env.net.eval(), x, y, delta, config.ref_eps, config.ref_step_size, 2)
            for x, y, delta in zip(seen.x, seen.y, starts, strict=True)
        ]
    )
    for n in range(0, 12, 3):
        rise = outcome(stepped(n, 1.01), x_ref) - outcome(stepped(n, 0.99), x_ref)
        true = float(rise) / 0.02 * 12 / rate
        assert float(played.rewarded.influence[n]) == pytest.approx(true, rel=0.02, abs=1e-4)


@pytest.mark.parametrize("fields", [("augmix",), ("erasing",), ("augmix", "erasing")])
def test_a_strength_of_nothing_trains_the_net_of_a_grid_without_it(fields):
    grid = {"eps": (0.1, 0.2), "num_steps": (1.0, 2.0)}
    nets = []
    for more in ({}, dict.fromkeys(fields, (0.0,))):
        env, learner = a_round(attack__grid={**grid, **more}, precision="fp32", attack__start="uniform")
        for _ in range(3):
            play_round(env, learner)
        nets.append(env.net.state_dict())
    for name, value in nets[0].items():
        assert torch.equal(nets[1][name], value), name


def test_it_costs_no_pass():
    env, _ = a_round(attack__grid={"num_steps": (1.0, 3.0), "augmix": (0.0, 1.0), "erasing": (0.0, 0.5)})
    attacked = env.play(actions_for(env)).attacked
    none = dataclasses.replace(attacked.strategy, augmix=None, erasing=None)
    without = dataclasses.replace(attacked, strategy=none)
    close(image_passes(env.config, attacked, 0), image_passes(env.config, without, 0))


def test_a_learned_strategy_finds_the_strength_that_it_is_paid_for():
    """Paid by L1 alone, the loss of what was trained on, it hides what it can."""
    config = small_config(
        attack__grid={"eps": (0.01,), "num_steps": (1.0,), "erasing": (0.0, 0.7)},
        reward__alpha=0.0,
        reward__beta=0.0,
        reward__standardize=True,
        policy__lr=0.5,
        optim__lr=0.1,
    )
    digits = load_config_dataset(config)
    env, learner = build_round(config, digits.train, 10, group=ProcessGroup(), device=CPU)
    means = [float(play_round(env, learner).sums["erasing"]) / 32 for _ in range(40)]
    assert 0.25 < means[0] < 0.45 and min(means[-5:]) > 0.6
