"""A planted bandit of known gains and costs, driven through the learners' protocol: paid gain less the
running price of the cost, every learner ends at the arm of the best ratio, and the price at that ratio."""

import pytest
import torch

from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.update.price import Price
from tests.support.toy import ADAM, rollout_of, toy_learner

N = 64
GRID = {"eps": (0.1,), "num_steps": (1.0, 2.0, 3.0, 10.0), "step_size": (0.1,)}
GAIN = torch.tensor([0.5, 2.1, 2.4, 3.3])
COST = torch.tensor([5.0, 7.0, 9.0, 23.0])
RATIO = GAIN / COST  # 0.1, 0.3, 0.27, 0.14: neither the largest gain nor the smallest cost is best
BEST = 1
STEP = {**ADAM, "policy__lr": 0.02, "policy__update_epochs": 2, "policy__minibatches": 1}
LEARNERS = {
    "reinforce": STEP,
    "a2c": STEP,
    "ppo": STEP,
    "mirror-descent": {**STEP, "policy__mirror_step": 0.3},
    "ucb": {"policy__discount": 0.9, "policy__exploration": 0.5},
    "thompson": {"policy__discount": 0.9},
    "exp3": {"policy__min_exploration": 0.1},
}
"""Arms are judged at a price that moves: bandits with a memory have to forget."""


def played(learner, price, rounds, first=0):
    """Indices of the arm taken in the last round, [N], and the price after it."""
    index = torch.arange(N)
    generator = torch.Generator().manual_seed(first)
    for round in range(first, first + rounds):
        x = torch.rand(N, 1, 8, 8, generator=generator)
        action = learner.act(x, index, RandomKey.of(0, "action", round))
        arm = action.index[:, 1]
        gain = GAIN[arm] + 0.3 * torch.randn(N, generator=generator)
        paid = gain - price.update(round, gain, COST[arm], N, ProcessGroup()) * COST[arm]
        learner.update(rollout_of(x, action, (paid - paid.mean()) / (paid.std() + 1e-6)))
    return arm, float(price.value())


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_reaches_the_arm_of_the_best_ratio(name):
    learner, price = toy_learner(name, attack__grid=GRID, **LEARNERS[name]), Price()
    arm, rho = played(learner, price, 80)
    share = (arm == BEST).double().mean()
    assert share > (0.5 if name == "exp3" else 0.85), arm.bincount(minlength=4)
    if name != "exp3":  # it goes on exploring a tenth of the time, and slowly finds out
        assert abs(rho - float(RATIO[BEST])) < 0.03


def test_paid_the_gain_alone_a_learner_takes_the_strongest_arm():
    class Free(Price):
        def value(self):
            return torch.zeros((), dtype=torch.float64)

    learner = toy_learner("ppo", attack__grid=GRID, **STEP)
    arm, _ = played(learner, Free(), 80)
    assert (arm == 3).double().mean() > 0.85


def test_the_price_of_a_constant_policy_is_the_ratio_of_its_arm():
    price = Price()
    for round in range(60):
        mixed = torch.arange(N) % 4 if round < 10 else torch.full((N,), 2)
        price.update(round, GAIN[mixed], COST[mixed], N, ProcessGroup())
    assert float(price.value()) == pytest.approx(float(RATIO[2]), rel=0.01)


def test_a_price_of_zero_gives_the_gain_to_the_bit():
    price = Price()
    gain = -torch.rand(N)  # where every attack does harm, a pass is worth nothing
    paid = gain - price.update(0, gain, COST[torch.arange(N) % 4], N, ProcessGroup()) * COST[0]
    assert torch.equal(paid, gain)
