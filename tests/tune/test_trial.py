"""Trials and outcomes survive JSON; names tell what is computed."""

from __future__ import annotations

import dataclasses
import json

from lasat_ray.tune.trial import Outcome, Trial, all_trials
from tests.support.helpers import small_config
from tests.support.trials import finished


def test_trials_and_outcomes_survive_json():
    trial = Trial(row="k=1", config=small_config(), timed=True, parent="a", stop_epoch=1, info={"member": 2})
    assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial
    outcome = finished(place={"node": "x"})
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_a_name_changes_with_all_that_decides_what_is_computed_and_with_nothing_else():
    trial = Trial(row="L1+L2, all", config=small_config())
    assert trial.name.startswith("l1-l2-all-s0-")
    same = dataclasses.replace(trial, timed=True, info={"a": 1})
    assert same.name == trial.name
    others = [
        dataclasses.replace(trial, parent="b"),
        dataclasses.replace(trial, stop_epoch=1),
        dataclasses.replace(trial, config=small_config(reward__alpha=2.0)),
    ]
    assert len({trial.name, *(other.name for other in others)}) == 4


def test_the_best_epoch_is_the_most_robust_and_of_equals_the_later():
    curve = ((1, 0.9, 0.4), (2, 0.8, 0.5), (3, 0.7, 0.5), (4, 0.95, 0.3))
    assert Outcome(status="running", curve=curve).best == (0.7, 0.5)
    assert Outcome(status="running").best is None


def test_all_trials_asks_until_nothing_new_comes():
    first = Trial(row="a", config=small_config())
    second = Trial(row="b", config=small_config(seed=1))

    def sweep(outcomes):
        return [first, second] if first.name in outcomes else [first]

    assert all_trials(sweep, lambda _: finished()) == [first, second]
