"""The price of a pass: the ratio of gain to cost, or what holds a mean cost at its target."""

import copy

import pytest
import torch

from lasat_ray.process_group import ProcessGroup
from lasat_ray.update.price import Price

ALONE = ProcessGroup()


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_price_is_the_ratio_of_running_means():
    price = Price()
    assert float(price.value()) == 0.0
    assert float(price.update(0, tensor(1.0, 3.0), tensor(5.0, 11.0), 2, ALONE)) == pytest.approx(2 / 8)
    found = price.update(1, tensor(0.0, 1.0), tensor(3.0, 5.0), 2, ALONE)
    assert float(found) == pytest.approx((0.9 * 2 + 0.1 * 0.5) / (0.9 * 8 + 0.1 * 4))


def test_a_second_evaluation_of_a_round_finds_the_same_price():
    price = Price()
    first = price.update(3, tensor(1.0), tensor(4.0), 1, ALONE)
    assert torch.equal(price.update(3, tensor(9.0), tensor(1.0), 1, ALONE), first)
    assert not torch.equal(price.update(4, tensor(9.0), tensor(1.0), 1, ALONE), first)


def test_where_attacks_do_harm_none_is_paid_for_being_long():
    assert float(Price().update(0, tensor(-1.0, 0.5), tensor(5.0, 5.0), 2, ALONE)) == 0.0


def test_two_workers_find_the_price_of_one():
    class Half(ProcessGroup):
        def sum(self, value):
            return value + other

    other = tensor(3.0, 3.0, 11.0)  # the other worker's gain, size of gain and cost
    half = Price().update(0, tensor(1.0), tensor(5.0), 2, Half(0, 2))
    assert float(half) == pytest.approx(4 / 16)


@pytest.mark.parametrize("target", [6.0, 12.0])
def test_a_cost_target_is_reached_by_its_price(target):
    """Ten arms of 1 to 10 steps whose gain grows as a root: the one that is worth most at the price."""
    steps = torch.arange(1, 11, dtype=torch.float64)
    gain, cost = steps.sqrt(), 2 * steps + 4
    price, spent = Price(target), []
    rho = price.value()
    for round in range(400):
        arm = int((gain - rho * cost).argmax())
        rho = price.update(round, gain[arm : arm + 1], cost[arm : arm + 1], 1, ALONE)
        spent.append(float(cost[arm]))
    assert sum(spent[200:]) / 200 == pytest.approx(target, rel=0.05)


def test_rho_converges_to_the_best_ratio():
    """Dinkelbach's iteration, by the running means of a greedy policy."""
    gain, cost = tensor(1.0, 3.0, 3.6, 4.0), tensor(5.0, 9.0, 14.0, 23.0)
    price, rho = Price(), torch.zeros(())
    for round in range(200):
        arm = int((gain - rho * cost).argmax())
        rho = price.update(round, gain[arm : arm + 1], cost[arm : arm + 1], 1, ALONE)
    assert arm == 1 and float(rho) == pytest.approx(3 / 9, rel=1e-6)


def test_a_restored_price_goes_on_as_it_was():
    price = Price(7.0)
    price.update(0, tensor(1.0), tensor(9.0), 1, ALONE)
    twin = Price(7.0)
    twin.load_state_dict(copy.deepcopy(price.state_dict()), torch.device("cpu"))
    for one in (price, twin):
        one.update(1, tensor(2.0), tensor(3.0), 1, ALONE)
    assert torch.equal(price.value(), twin.value())
