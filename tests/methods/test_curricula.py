"""SAT's difficulty and CAT's strength over a run."""

from itertools import pairwise

import torch

from lasat_ray.attacks import attack_batch
from lasat_ray.methods.cat import next_strength
from lasat_ray.methods.sat import HardEnough, difficulty, most_at
from lasat_ray.rng import RandomKey
from tests.attacks.test_attacks import random_case, tiny_net
from tests.support.helpers import close, make_game, small_config

F64 = torch.float64


def test_sat_allows_more_every_epoch_and_everything_in_the_second_half():
    assert [most_at(e, 8, 0.0, None) for e in range(8)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    assert [most_at(e, 8, -1.0, 2.0) for e in range(3)] == [-1.0, 0.0, 1.0]


def test_sat_stops_where_the_difficulty_is_reached():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=F64))
    close(difficulty(logits, torch.tensor([0, 1])), torch.tensor([-0.5, 0.3], dtype=F64))
    batch, strategy = random_case(3)
    net = tiny_net()
    steps = []
    for most in (-1.0, 0.0, 0.3, 1.0):
        rule = HardEnough(batch.y, most)
        key = RandomKey.of(0, "t")
        attack_batch(net, batch, strategy, key, loss="ce", start_kind="uniform", rule=rule)
        steps.append(rule.stats()["steps_taken"])
    assert (steps[0] == 0).all() and torch.equal(steps[-1], strategy.num_steps)
    assert all((less <= more).all() for less, more in pairwise(steps))


def test_cat_mixes_all_strengths_up_to_the_present_one():
    config = small_config(method="cat", strategy="fixed", attack__num_steps=6, batch_size=48)
    env = make_game(config)
    seen = {}
    for strength in (0, 2, 9):
        env.target.strength = strength
        *_, info = env.step(torch.zeros(48, 3, dtype=torch.int64))
        seen[strength] = set(info["num_steps"].tolist())
    assert seen == {0: {0}, 2: {0, 1, 2}, 9: set(range(7))}


def test_cat_grows_by_one_when_the_threshold_is_reached():
    assert [next_strength(2, accuracy, 0.5, 3) for accuracy in (0.4, 0.5, 0.9)] == [2, 3, 3]
    assert next_strength(3, 1.0, 0.5, 3) == 3
