"""The objective ``rate`` and held-out outcomes, in the env that the trainer steps."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.data import OutcomeBatches, split_outcome
from lasat_ray.errors import UsageError
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.update.cost import image_passes, round_passes
from lasat_ray.update.reward import reference_images, reference_starts
from tests.support.helpers import CPU, close, make_game, make_images, small_config

INFLUENCE = {"precision": "fp64", "reward__credit": "influence", "reward__standardize": True}
HELD_OUT = {**INFLUENCE, "reward__outcome": "heldout", "reward__outcome_images": 5, "batch_size": 16}
RATE = {"reward__objective": "rate", "reward__l1_weight": 0.0}


def actions_for(env, seed=0):
    key = RandomKey.of(seed, "test actions")
    draws = [key.fold_in(k).integers(env.batch.index, (), size) for k, size in enumerate(env.space.sizes)]
    return torch.stack(draws, 1)


def standard(value):
    return (value - value.mean()) / value.std(correction=0)


@pytest.mark.parametrize("outcome", [{}, {"reward__outcome": "heldout", "reward__outcome_images": 5}])
def test_a_price_of_zero_gives_the_reward_of_total_to_the_bit(outcome):
    settings = {**INFLUENCE, **outcome, "reward__l1_weight": 0.3}
    total = make_game(small_config(**settings))
    free = make_game(small_config(**settings, reward__objective="rate"))
    free.price.update = lambda *given: torch.zeros((), dtype=torch.float64)
    for round in range(2):
        action = actions_for(total, round)
        one, other = total.step(action), free.step(action)
        assert torch.equal(one[1], other[1]) and one[1].abs().max() > 0


def test_the_price_of_the_cost_is_taken_from_the_gain():
    env = make_game(small_config(**INFLUENCE, **RATE))
    played = env.play(actions_for(env))
    earned = played.rewarded
    cost = image_passes(env.config, played.attacked, 0)
    close(earned.cost, cost)
    assert torch.equal(earned.gain, earned.influence)
    close(earned.price, (earned.gain.mean() / cost.mean()).clamp(min=0))
    close(earned.reward, standard(earned.gain - earned.price * cost), atol=1e-6)


def test_credit_image_gains_what_the_update_did_to_each_image():
    env = make_game(small_config(precision="fp64", reward__objective="rate", reward__alpha=0.7))
    before = copy.deepcopy(env.net).eval()
    batch = env.batch
    earned = env.play(actions_for(env)).rewarded
    config, key = env.config.reward, RandomKey.of(env.seed, "reference start", 0)
    after = copy.deepcopy(env.net).eval()
    x_ref = reference_images(after, batch, config, reference_starts(batch, config, key))
    with torch.no_grad():
        losses = [[F.cross_entropy(net(x), batch.y, reduction="none") for x in (x_ref, batch.x)]
                  for net in (before, after)]  # fmt: skip
    close(earned.gain, 0.7 * (losses[0][0] - losses[1][0]) + losses[0][1] - losses[1][1], atol=1e-7)
    terms = earned.terms
    close(earned.reward, terms.l1 + 0.7 * terms.l2 + terms.l3 - earned.price * earned.cost)


@pytest.mark.parametrize(
    "changes", [{}, {"method": "trades"}, {"method": "mart"}, {"loss__awp_gamma": 0.01}, {"method": "lbgat"}]
)
def test_an_image_costs_what_the_cost_model_says(changes):
    env = make_game(small_config(**{"strategy": "random", **changes}))
    attacked = env.attack_as_chosen(env.space.decode(actions_for(env)))
    found = image_passes(env.config, attacked, 0)
    for steps, cost in zip(attacked.strategy.num_steps.tolist(), found.tolist(), strict=True):
        assert cost == pytest.approx(round_passes(env.config, steps=steps, paid=False)[0])


def test_the_outcome_is_measured_on_images_that_no_update_sees():
    images = make_images(48)
    config = small_config(**HELD_OUT)
    env = make_game(config, images)
    rest, held = split_outcome(images, 0.1, config.reward.outcome_images, config.seed)
    assert len(rest) == 48 - len(held) and len(env.outcome.images) == len(held) >= 1
    apart = {tuple(x.flatten().tolist()) for x in held.x}
    for round in range(4):
        env.seek(round)
        seen = {tuple(x.flatten().tolist()) for x in (env.batch.x * 255).round().to(torch.uint8)}
        assert not seen & apart
        asked = env.outcome.batch(env.seed, round)
        assert {tuple(x.flatten().tolist()) for x in (asked.x * 255).round().to(torch.uint8)} <= apart


def test_influence_on_held_out_images_is_what_leaving_an_image_out_does():
    """To first order: against real lookaheads on the held-out images, image by image."""
    images = make_images(96)
    env = make_game(
        small_config(
            **{**HELD_OUT, "reward__outcome_fraction": 0.2, "reward__outcome_images": 12},
            optim__lr=1e-4,
            optim__momentum=0.0,
            optim__schedule="constant",
            reward__alpha=1.3,
        ),
        images,
    )
    before, batch = copy.deepcopy(env.net), env.batch
    played = env.play(actions_for(env))
    asked = env.outcome.batch(env.seed, 0)
    config, key = env.config.reward, RandomKey.of(env.seed, "reference start", 0)
    x_ref = reference_images(copy.deepcopy(env.net), asked, config, reference_starts(asked, config, key))

    def outcome(weight_B):
        net = copy.deepcopy(before).train()
        loss = (weight_B * F.cross_entropy(net(played.attacked.x_adv), batch.y, reduction="none")).sum() / 16
        step = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(net.parameters(), step, strict=True):
                parameter.sub_(1e-4 * grad)
            net.eval()
            return -(1.3 * F.cross_entropy(net(x_ref), asked.y) + F.cross_entropy(net(asked.x), asked.y))

    everyone = torch.ones(16, dtype=torch.float64)
    effects = []
    for n in range(16):
        without = everyone.clone()
        without[n] = 0.0
        effects.append(outcome(everyone) - outcome(without))
    found = played.rewarded.influence * 1e-4 / 16
    torch.testing.assert_close(found, torch.stack(effects), rtol=2e-2, atol=1e-9)


def test_two_workers_ask_the_held_out_images_of_one():
    images = make_images(20)
    place = {"device": CPU, "dtype": torch.float64}
    whole = OutcomeBatches(images, 7, group=ProcessGroup(), **place).batch(0, 3)
    halves = [OutcomeBatches(images, 7, group=ProcessGroup(rank, 2), **place).batch(0, 3) for rank in (0, 1)]
    assert torch.equal(torch.cat([half.x for half in halves]), whole.x)
    assert torch.equal(torch.cat([half.index for half in halves]), whole.index)
    assert all(half.global_size == 7 for half in halves)


def test_too_few_held_out_images_are_told():
    with pytest.raises(UsageError, match=r"images: 32 is more than half of the 48 .*; lower it to 24"):
        make_game(small_config(**{**HELD_OUT, "reward__outcome_images": 32}))
    with pytest.raises(UsageError, match=r"--reward.outcome-fraction: 0.99 of 48 images leaves none"):
        make_game(small_config(**{**HELD_OUT, "reward__outcome_fraction": 0.99}))


def test_a_small_set_holds_out_what_a_rewarded_round_asks_for():
    """A tenth of 48 images is 5; the round asks for 20."""
    env = make_game(small_config(**{**HELD_OUT, "reward__outcome_images": 20}), make_images(48))
    assert len(env.outcome.images) == 20 == env.outcome.batch(0, 0).global_size


def test_a_rewarded_round_is_cheap_with_a_quarter_of_the_images():
    """k = 10 and H = B/4: at most a tenth over the plain round of PGD-10."""
    config = small_config(
        **INFLUENCE, **RATE, reward__outcome="heldout", reward__outcome_images=8, update_interval=10
    )
    config = dataclasses.replace(config, reward=dataclasses.replace(config.reward, ref_num_steps=10))
    plain, rewarded = (round_passes(config, steps=10, paid=paid)[0] for paid in (False, True))
    assert (rewarded - plain) / 10 <= 0.1 * plain
