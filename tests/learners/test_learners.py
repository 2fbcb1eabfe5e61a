"""The controls, and learners from outside by name."""

import pytest
import torch

from lasat_ray.errors import UserError
from lasat_ray.learners import make_learner
from lasat_ray.rng import RandomKey
from lasat_ray.strategy import StrategySpace
from lasat_ray.types import Rollout
from tests.support.helpers import close, make_context, small_config

GRID = {"eps": (0.1, 0.2), "num_steps": (1.0, 2.0, 3.0), "step_size": (0.1, 0.2, 0.3, 0.4, 0.5)}
SPACE = StrategySpace.of(GRID, device="cpu", dtype=torch.float32)
X = torch.zeros(6000, 1, 2, 2)
INDEX = torch.arange(6000)


def learner_of(**changes):
    return make_learner(make_context(small_config(**changes), SPACE))


def rollout_of(action):
    return Rollout(
        x=X, action=action.index, log_prob=action.log_prob, reward=torch.ones(6000), global_size=6000
    )


def test_fixed_always_takes_the_first_options():
    learner = learner_of(strategy="fixed")
    action = learner.act(X, INDEX, RandomKey.of(0, "a"))
    assert action.index.shape == (6000, 3) and not action.index.any()
    assert not action.log_prob.any()


def test_random_takes_every_option_equally_often_and_independently():
    learner = learner_of(strategy="random")
    action = learner.act(X, INDEX, RandomKey.of(0, "a"))
    joint = action.index[:, 0] * 15 + action.index[:, 1] * 5 + action.index[:, 2]
    counts = torch.bincount(joint, minlength=30).double()
    assert ((counts - 200) ** 2 / 200).sum() < 59  # chi-square, 29 degrees of freedom, p = 0.001
    close(action.log_prob, torch.full((6000,), -3.4011974, dtype=torch.float32), atol=1e-6)
    part = learner.act(X[:7], INDEX[100:107], RandomKey.of(0, "a"))
    assert torch.equal(part.index, action.index[100:107])
    assert not torch.equal(learner.act(X, INDEX, RandomKey.of(0, "b")).index, action.index)


@pytest.mark.parametrize("strategy", ["fixed", "random"])
def test_a_control_learns_nothing_and_keeps_nothing(strategy):
    learner = learner_of(strategy=strategy)
    action = learner.act(X, INDEX, RandomKey.of(0, "a"))
    report = learner.update(rollout_of(action))
    assert not report.per_image and not report.scalars and learner.state_dict() == {}
    learner.load_state_dict({})
    assert torch.equal(learner.act(X, INDEX, RandomKey.of(0, "a")).index, action.index)


def test_an_unknown_learner_is_told_with_what_is_known():
    with pytest.raises(UserError, match="--learner: 'ppo2' is unknown; choose one of: a2c, curriculum"):
        learner_of(learner="ppo2")


class LastOption:
    """A learner from outside: all it needs."""

    def __init__(self, context):
        self.sizes = torch.tensor(context.space.sizes)

    def act(self, x, index, key):
        from lasat_ray.types import Action

        return Action(index=(self.sizes - 1).expand(len(x), -1), log_prob=torch.zeros(len(x)))

    def update(self, rollout):
        from lasat_ray.types import LearnerReport

        return LearnerReport()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class OnlyActs:
    def __init__(self, context):
        pass

    def act(self, x, index, key):
        pass


NOT_CALLABLE = 3


def test_a_learner_from_outside_acts():
    learner = learner_of(learner="tests.learners.test_learners:LastOption")
    assert learner.act(X, INDEX, RandomKey.of(0, "a")).index.unique(dim=0).tolist() == [[1, 2, 4]]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tests.learners.test_learners:OnlyActs", "lacks update, state_dict, load_state_dict; see "),
        ("tests.learners.test_learners:Nobody", "has no 'Nobody'"),
        ("tests.learners.test_learners:NOT_CALLABLE", "is no class"),
        ("no_such_module:Class", "cannot import 'no_such_module'"),
        ("tests.learners:", "is not module:name"),
    ],
)
def test_a_learner_from_outside_that_cannot_work_is_told_in_one_line(name, told):
    with pytest.raises(UserError) as caught:
        learner_of(learner=name)
    message = str(caught.value)
    assert message.startswith("--learner: ") and told in message and "\n" not in message
