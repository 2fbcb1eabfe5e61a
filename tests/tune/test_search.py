"""Searches: within the budget, repeatable, indifferent to how many run at a time; PBT's exchanges."""

from __future__ import annotations

import dataclasses
import random

import pytest

from lasat_ray.recipes import get_recipe
from lasat_ray.tune.search import (
    draw,
    epoch_cost,
    population,
    propose,
    random_search,
    rng_of,
    strategies_of,
    tpe_search,
)
from lasat_ray.tune.search_strategy import SearchStrategy, stretched, sweep_of
from lasat_ray.tune.trial import Outcome, Trial, all_trials
from lasat_ray.update.cost import expected_passes
from tests.support.trials import asked_of, finished

CONFIG = dataclasses.replace(get_recipe("digits").config, epochs=6)
BUDGET = 6 * 6 * 23.0


def quality(trial: Trial) -> Outcome:
    """An imaginary world: larger eps and more steps are more robust, with a little luck."""
    attack, luck = trial.config.attack, random.Random(trial.name).random() / 20
    robust = attack.eps + attack.num_steps / 50 + luck
    return finished(robust=robust, curve=((trial.stop_epoch or 6, 0.9, robust),))


def cost(trials):
    ends = [t.stop_epoch or t.config.epochs for t in trials]
    starts = [t.info.get("start_epoch", 0) for t in trials]
    return sum((e - s) * epoch_cost(t.config) for e, s, t in zip(ends, starts, trials, strict=True))


SEARCHES = {
    "random": lambda outcomes, seed: random_search(CONFIG, seed, BUDGET),
    "tpe": lambda outcomes, seed: tpe_search(CONFIG, seed, BUDGET, outcomes, 2),
    "pbt": lambda outcomes, seed: population(CONFIG, seed, BUDGET, outcomes, 6, 2),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_spends_its_budget_and_no_more_and_repeats_itself(name):
    sweep = SEARCHES[name]
    trials = all_trials(lambda outcomes: sweep(outcomes, 0), quality)
    assert BUDGET - 6 * 31 < cost(trials) <= BUDGET * (1 + 1e-9)
    assert [t.name for t in trials] == [t.name for t in all_trials(lambda o: sweep(o, 0), quality)]
    assert [t.name for t in trials] != [t.name for t in all_trials(lambda o: sweep(o, 1), quality)]
    assert len({t.name for t in trials}) == len(trials)
    space = strategies_of(CONFIG)
    for trial in trials:
        attack = trial.config.attack
        assert trial.config.strategy == "fixed"
        assert all(getattr(attack, field) in values for field, values in space.items())


@pytest.mark.parametrize("name", SEARCHES)
def test_results_that_come_in_another_order_change_nothing(name):
    """One at a time, the newest first, as a machine with other speeds would deliver them."""
    sweep, outcomes = SEARCHES[name], {}
    while new := [t for t in sweep(outcomes, 0) if t.name not in outcomes]:
        outcomes[new[-1].name] = quality(new[-1])
    expected = all_trials(lambda o: sweep(o, 0), quality)
    assert [t.name for t in sweep(outcomes, 0)] == [t.name for t in expected]


def test_tpe_learns_from_what_it_is_told():
    """Where only eps matters, it proposes larger eps than chance, whose mean is 0.175."""
    import optuna

    values = strategies_of(CONFIG)
    space = {name: optuna.distributions.CategoricalDistribution(v) for name, v in values.items()}
    points = [draw(values, rng_of(0, n)) for n in range(24)]
    told = [(point, [point["eps"]]) for point in points]
    proposed = propose(told, space, 4, [0, 24], startup=4)
    assert sum(point["eps"] for point in proposed) / 4 > 0.25


def test_a_failed_trial_is_told_to_the_search_as_such():
    import optuna

    space = {"alpha": optuna.distributions.FloatDistribution(0.1, 10, log=True)}
    told = [({"alpha": 1.0}, None), ({"alpha": 2.0}, [0.5])]
    points = propose(told, space, 3, [0, 2], startup=1)
    assert len(points) == 3 and all(0.1 <= point["alpha"] <= 10 for point in points)


def test_the_worst_take_over_the_best_and_explore_next_to_them():
    trials = all_trials(lambda o: SEARCHES["pbt"](o, 0), quality)
    first = [t for t in trials if t.info["start_epoch"] == 0]
    second = [t for t in trials if t.info["start_epoch"] == 2]
    ranked = sorted(first, key=lambda t: -quality(t).curve[-1][2])
    best, worst = ranked[0], ranked[-1]
    taken = next(t for t in second if t.info["member"] == worst.info["member"])
    assert taken.parent == best.name
    others = [t for t in second if t.info["member"] not in (worst.info["member"],)]
    parents = {t.info["member"]: t.name for t in first}
    assert all(t.parent == parents[t.info["member"]] for t in others)
    assert all(t.config.attack == p.config.attack for t in others for p in first if p.name == t.parent)
    assert all(t.config.epochs == 6 for t in trials)  # one learning-rate course over all stretches


def test_a_failed_member_ends_and_the_others_go_on():
    def sour(trial):
        lost = trial.info["member"] == 2 and trial.info["start_epoch"] == 0
        return Outcome(status="failed", error="x") if lost else quality(trial)

    trials = all_trials(lambda o: population(CONFIG, 0, BUDGET, o, 6, 2), sour)
    assert [t for t in trials if t.info["member"] == 2 and t.info["start_epoch"] == 0]
    assert not [t for t in trials if t.info["member"] == 2 and t.info["start_epoch"] > 0]


def test_every_contender_may_spend_the_same():
    asked = dataclasses.replace(asked_of("x", CONFIG), settings=SearchStrategy(seeds=(0, 1)))
    trials = all_trials(sweep_of(asked), quality)
    for seed in (0, 1):
        for row in ("learned", "PGD-AT", "random search", "TPE", "PBT"):
            spent = cost([t for t in trials if t.row == row and t.config.seed == seed])
            assert 0.75 * BUDGET < spent <= BUDGET * (1 + 1e-9), row
    assert {t.config.strategy for t in trials if t.row == "learned"} == {"learned"}


def test_a_longer_run_stretches_its_milestones():
    optim = dataclasses.replace(CONFIG.optim, schedule="multistep", milestones=(3.0, 5.0))
    fixed = dataclasses.replace(CONFIG, strategy="fixed", optim=optim)
    longer = stretched(fixed, 12 * epoch_cost(fixed))
    assert longer.epochs == 12 and longer.optim.milestones == (6.0, 10.0)


def test_epoch_cost_is_the_expected_cost_an_image():
    assert epoch_cost(dataclasses.replace(CONFIG, strategy="fixed")) == 23
    config = dataclasses.replace(CONFIG, update_interval=4)
    exact = expected_passes(config, 1000, 1) / 1000 / config.batch_size
    assert epoch_cost(config) == pytest.approx(exact)


def test_draws_are_named_by_seed_and_number():
    space = {"eps": (0.1, 0.2, 0.3)}
    assert draw(space, rng_of(0, 1)) == draw(space, rng_of(0, 1))
    drawn = [draw(space, rng_of(0, n))["eps"] for n in range(300)]
    assert all(70 < drawn.count(value) < 130 for value in space["eps"])
