"""The example of a learner from outside finds the best constant strategy, and remembers it."""

import torch

from lasat_ray.strategy import StrategySpace
from tests.support.helpers import seeded_learner, small_config
from tests.support.toy import FAST, GRID, Brightness, play


def learner_of():
    config = small_config(**FAST, learner="examples.own_learner:EpsilonGreedy")
    return seeded_learner(config, StrategySpace.of(GRID, device="cpu", dtype=torch.float32))


def test_epsilon_greedy_finds_the_best_constant():
    learner, game = learner_of(), Brightness(1)
    earned = play(learner, game, 40, blind=True)
    assert earned[-10:].mean() > 1.75
    again = learner_of()
    again.load_state_dict(learner.state_dict())
    assert torch.equal(play(again, Brightness(2), 2, blind=True), play(learner, Brightness(2), 2, blind=True))
