"""The plan: what fits, what is refused before anything starts, what it will cost."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import pytest
from rich.console import Console

from lasat_ray.cluster.placement import Placement
from lasat_ray.errors import UsageError
from lasat_ray.training.estimate import spell_seconds
from lasat_ray.tune.options import SweepRun
from lasat_ray.tune.plan import (
    Throughput,
    bundles_of,
    check_rounds,
    decide,
    how_many_fit,
    make_plan,
    measure_here,
    place_of,
    trial_passes,
)
from lasat_ray.tune.trainable import TrialResources
from lasat_ray.tune.trial import Trial
from tests.support.helpers import small_config
from tests.support.trials import finished

TWO = [{"CPU": 2.0}]
PROBE = Throughput(rounds_per_epoch=3, n_train=115, n_val=13, seconds_per_pass=1e-5)


def trials(count=3, timed=False, **changes):
    return [Trial(row="a", config=small_config(seed=n, **changes), timed=timed) for n in range(count)]


@pytest.mark.parametrize(
    ("run", "nodes", "timed", "expected"),
    [
        ({}, TWO, False, (2, [{"CPU": 1.0}])),
        ({}, TWO, True, (1, [{"CPU": 1.0}])),
        ({"max_concurrent": 4}, TWO, False, (3, [{"CPU": 0.5}])),  # three trials only
        ({"cpus_per_trial": 0.5}, TWO, False, (3, [{"CPU": 0.5}])),
        ({}, [{"CPU": 1.0}, {"CPU": 1.0}], False, (2, [{"CPU": 1.0}])),
        ({"gpus_per_trial": 0.5}, [{"CPU": 8.0, "GPU": 1.0}], False, (2, [{"CPU": 1.0, "GPU": 0.5}])),
        ({"num_workers": 2}, [{"CPU": 4.0}], True, (1, [{"CPU": 0.05}, {"CPU": 1.0}, {"CPU": 1.0}])),
        ({"num_workers": 2}, TWO, True, (1, [{"CPU": 0.05}, {"CPU": 0.97}, {"CPU": 0.97}])),
        (
            {"num_workers": 2, "gpus_per_trial": 2.0},
            [{"CPU": 8.0, "GPU": 4.0}],
            False,
            (2, [{"CPU": 0.05}, {"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}]),
        ),
    ],
)
def test_trials_at_a_time_and_what_each_reserves(run, nodes, timed, expected):
    assert decide(SweepRun(**run), nodes, trials(timed=timed)) == expected


@pytest.mark.parametrize(
    ("run", "nodes", "told"),
    [
        ({"cpus_per_trial": 3.0}, TWO, "--cpus-per-trial: a trial needs 3 CPU, Ray's machines have 2 CPU"),
        ({"cpus_per_trial": 2.0}, [{"CPU": 1.0}, {"CPU": 1.0}], "a trial needs 2 CPU"),
        ({"gpus_per_trial": 0.5}, TWO, "--gpus-per-trial: a trial needs 1 CPU, 0.5 GPU"),
        ({"num_workers": 3, "cpus_per_trial": 6.0}, TWO, "--num-workers: a trial needs 0.05 CPU"),
        ({"num_workers": 40}, TWO, "a trial needs 0.05 CPU + 40 times 0.1 CPU, Ray's machines have 2 CPU"),
        ({"max_concurrent": 3, "cpus_per_trial": 1.0}, TWO, "--max-concurrent: 3 trials of 1 CPU do not fit"),
    ],
)
def test_what_can_never_run_is_refused_in_one_line(run, nodes, told):
    with pytest.raises(UsageError, match=re.escape(told)) as caught:
        decide(SweepRun(**run), nodes, trials())
    assert "\n" not in str(caught.value)


def test_a_bundle_lies_on_one_machine_and_those_of_a_trial_may_be_apart():
    bundles = bundles_of(SweepRun(num_workers=2), 1.0)
    assert how_many_fit([{"CPU": 1.1}, {"CPU": 1.1}], bundles) == 1
    assert how_many_fit([{"CPU": 1.9}], bundles) == 0
    assert how_many_fit([{"CPU": 100.0}], [{"CPU": 1.0}], most=7) == 7


def test_the_plan_says_how_many_how_long_and_what_is_left():
    given = trials(strategy="fixed", attack__num_steps=10)
    known = {given[0].name: finished()}
    plan = make_plan(lambda _: given, known, SweepRun(), TWO, "out", lambda *_: PROBE)
    assert (len(plan.trials), plan.left, plan.concurrent) == (3, 2, 2)
    assert plan.passes == 3 * 2 * 3 * 32 * 23
    assert plan.seconds > 2 * 2 * 3 * 32 * 23 * 1e-5 / 2
    shown = io.StringIO()
    plan.show(Console(file=shown, width=120), "out")
    for told in ("3 trials in 1 rows, 2 at a time, each 1 CPU", "3 rounds an epoch", "(1 are finished)"):
        assert told in shown.getvalue()


def test_a_k_that_never_comes_is_refused():
    check_rounds(trials(update_interval=6), rounds_per_epoch=3)
    with pytest.raises(UsageError, match="the run has 6 rounds, the strategy net would never learn"):
        check_rounds(trials(update_interval=7), rounds_per_epoch=3)
    check_rounds(trials(update_interval=7, strategy="fixed"), rounds_per_epoch=3)


def test_a_probe_looks_at_the_data_and_the_clock():
    probe = measure_here(small_config(), TrialResources(out="", cwd=""))
    assert (probe.rounds_per_epoch, probe.n_train, probe.n_val) == (3, 115, 13)
    assert 0 < probe.seconds_per_pass < 0.1


def test_a_budget_is_what_a_trial_spends_however_many_epochs_it_names():
    probe = Throughput(rounds_per_epoch=3, n_train=115, n_val=13, seconds_per_pass=0.01)
    (trial, *_) = trials(budget_passes=50.0, update_interval=7)
    assert trial_passes(trial, probe) == 50 * 3 * trial.config.batch_size
    check_rounds([trial], rounds_per_epoch=3)
    (trial, *_) = trials(budget_minutes=2.0)
    assert trial_passes(trial, probe) == pytest.approx(120 / 0.01)


@pytest.mark.parametrize(("seconds", "told"), [(5, "5 s"), (600, "10 min"), (9000, "2.5 h")])
def test_time_is_spelled_as_people_say_it(seconds, told):
    assert spell_seconds(seconds) == told


@pytest.mark.parametrize(
    ("spread", "nodes", "fit"),
    [
        ("pack", [{"CPU": 3.1}, {"CPU": 3.1}], 3),
        ("strict-pack", [{"CPU": 3.1}, {"CPU": 3.1}], 2),
        ("strict-pack", [{"CPU": 1.5}, {"CPU": 1.5}], 0),
        ("strict-spread", [{"CPU": 3.1}, {"CPU": 1.0}], 1),
        ("strict-spread", [{"CPU": 9.0}], 0),
    ],
)
def test_strict_placements_keep_the_workers_of_a_trial_together_or_apart(spread, nodes, fit):
    bundles = [{"CPU": 0.05}, {"CPU": 1.0}, {"CPU": 1.0}]
    assert how_many_fit(nodes, bundles, spread=spread) == fit


def test_the_wishes_of_a_sweep_reach_its_trials():
    nodes = [{"CPU": 8.0, "GPU": 2.0, "accelerator_type:L4": 1.0}, {"CPU": 8.0, "GPU": 2.0}]
    run = SweepRun(gpus_per_trial=1.0, accelerator_type="L4", node_labels=("region=eu", "disk=!slow"))
    concurrent, bundles = decide(run, nodes, trials())
    assert (concurrent, bundles) == (2, [{"CPU": 1.0, "GPU": 1.0, "accelerator_type:L4": 0.001}])
    place = place_of(run, bundles, "out")
    assert place.placement == Placement(accelerator_type="L4", node_labels={"region": "eu", "disk": "!slow"})
    assert TrialResources.of(json.loads(json.dumps(dataclasses.asdict(place)))) == place


def test_workers_that_no_machine_holds_together_are_one_line():
    run = SweepRun(num_workers=3, cpus_per_trial=3.0, placement="strict-pack")
    with pytest.raises(
        UsageError, match=r"^--placement: a trial needs 0.05 CPU \+ 3 times 1 CPU, Ray's mach"
    ):
        decide(run, [{"CPU": 2.0}, {"CPU": 2.0}], trials())
