"""``--policy.initial-price``: a policy that begins with cheap attacks, before any gain is known."""

from __future__ import annotations

import math

import pytest
import torch

from lasat_ray.env.build import build_round
from lasat_ray.learners import LearnerContext, make_learner, seeded_learner
from lasat_ray.process_group import ProcessGroup
from lasat_ray.strategy import StrategySpace
from tests.support.helpers import make_context, make_images, small_config
from tests.support.toy import toy_learner

GRID = {"eps": (0.1, 0.2), "num_steps": (1.0, 3.0, 10.0)}


def log_probs(head: str, price: float) -> list[torch.Tensor]:
    learner = toy_learner(
        "reinforce", attack__grid=GRID, policy__initial_price=price, policy__head=head, precision="fp64"
    )
    return learner.net(torch.rand(4, 1, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("head", ["categorical", "ordinal"])
def test_the_first_policy_weighs_each_number_of_steps_by_its_cost(head: str) -> None:
    """PGD-AT: n steps of two passes and an update of three, so 5, 9 and 23 passes; 37/3 on average."""
    eps, steps = log_probs(head, 2.0)
    weights = [math.exp(-2 * cost / (37 / 3)) for cost in (5, 9, 23)]
    expected = torch.tensor([weight / sum(weights) for weight in weights], dtype=torch.float64)
    torch.testing.assert_close(steps.exp(), expected.expand(4, 3), rtol=1e-6, atol=0)
    torch.testing.assert_close(eps.exp(), torch.full((4, 2), 0.5, dtype=torch.float64), rtol=1e-12, atol=0)


def test_without_it_the_first_policy_is_uniform() -> None:
    for log_p in log_probs("categorical", 0.0):
        assert torch.equal(log_p, torch.full_like(log_p, -math.log(log_p.shape[1])))


def test_a_policy_that_is_loaded_is_the_one_that_was_saved() -> None:
    """A table of numbers alone says what was learned: nothing has to be priced again."""
    config = small_config(attack__grid=GRID, policy__initial_price=2.0)
    space = StrategySpace.of(GRID, device="cpu", dtype=torch.float32)
    first = seeded_learner(make_context(config, space))
    context = LearnerContext(
        space=space, image_shape=(1, 8, 8), config=config, group=ProcessGroup(), device=torch.device("cpu")
    )
    again = make_learner(context)
    again.load_state_dict(first.state_dict())
    x = torch.rand(4, 1, 8, 8)
    for log_p, log_q in zip(first.net(x), again.net(x), strict=True):
        assert torch.equal(log_p, log_q)


def test_a_run_starts_cheap() -> None:
    config = small_config(attack__grid={**GRID, "step_size": (0.1,)}, policy__initial_price=4.0)
    _, learner = build_round(config, make_images(64), 4, group=ProcessGroup(), device=torch.device("cpu"))
    shares = learner.net(torch.rand(48, 1, 8, 8))[1].exp().mean(0)
    assert shares[0] > 0.5 > shares[2] * 10
