"""A run with a budget spends it, its schedules follow, and a stopped one ends like one that ran through."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from lasat_ray.cluster.local import train_here
from lasat_ray.errors import UsageError
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.budget import Budget, strategy_pass
from lasat_ray.training.early_stopping import EarlyStopping
from lasat_ray.types import RoundReport
from lasat_ray.update.cost import counted_passes
from lasat_ray.validation import check
from tests.support.helpers import make_game, seeded_learner, small_config

RATE = {
    **{"reward__credit": "influence", "reward__standardize": True, "update_interval": 2},
    **{"reward__objective": "rate", "reward__outcome": "heldout", "reward__outcome_images": 8},
}
CASES = {
    "fixed": {"strategy": "fixed"},
    "learned": {"update_interval": 2},
    "rate": RATE,
    "a rule": {"method": "fat", "strategy": "random"},
    "awp": {"strategy": "fixed", "loss__awp_gamma": 0.01, "loss__awp_warmup": 2},
    "entropy": {"policy__entropy_weight": 0.1, "policy__entropy_schedule": "linear", "learner": "ppo"},
    "curriculum": {"strategy": "curriculum"},
}
PASSES = 60.0


def records(folder):
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


@pytest.mark.parametrize("case", CASES)
def test_a_run_spends_its_budget_to_half_a_round_and_its_schedules_follow(case, tmp_path):
    config = small_config(epochs=4, budget_passes=PASSES, optim__schedule="cosine", **CASES[case])
    folder = RunFolder.create(tmp_path / "run", config)
    summary = train_here(config, folder)
    rounds = [r for r in records(folder) if r["kind"] == "round"]
    weight = summary["strategy_pass"]
    spent = [target + weight * strategy for target, strategy in (counted_passes(config, [r]) for r in rounds)]
    images = summary["passes"] / summary["passes_per_image"]
    assert sum(spent) == pytest.approx(summary["passes"])
    # The round that would end it best was guessed from the two before: rounds of unlike cost add to that.
    assert abs(sum(spent) - PASSES * images) <= 1.5 * max(spent)
    known = [0.0, 0.0, *(sum(spent[: n + 1]) for n in range(len(spent)))]
    for r, before in zip(rounds, known, strict=False):
        assert r["progress"] == pytest.approx(before / (PASSES * images))
    last = [r for r in records(folder) if r["kind"] == "epoch"][-1]
    assert last["budget_spent"] == pytest.approx(sum(spent) / (PASSES * images))
    assert last["lr"] < 0.2 * config.optim.lr, "the rate has fallen with the budget, not with epochs"


@pytest.mark.parametrize("case", ["rate", "curriculum", "entropy"])
def test_a_stopped_run_ends_like_one_that_ran_through(case, tmp_path):
    config = small_config(epochs=4, budget_passes=PASSES, **CASES[case])
    whole = RunFolder.create(tmp_path / "whole", config)
    train_here(config, whole)
    parts = RunFolder.create(tmp_path / "parts", config)
    for stop in (2, 5, None):
        train_here(config, parts, stop_after=stop)
    nets = [load_checkpoint(f.checkpoints / "last.safetensors") for f in (whole, parts)]
    assert nets[0]["round"] == nets[1]["round"] > 5
    assert nets[0]["budget"] == nets[1]["budget"]
    for name, value in nets[0]["target_net"].items():
        assert torch.equal(value, nets[1]["target_net"][name]), name


def report_of(round, steps=2.0):
    return RoundReport(
        round=round,
        global_size=32,
        sums={"num_steps": torch.tensor(32 * steps)},
        scalars={},
        option_counts=torch.zeros(1),
        progress=0.0,
    )


def test_a_gpu_whose_numbers_come_one_round_late_walks_the_same_course():
    config = small_config(strategy="fixed", budget_passes=10.0)
    prompt, late = Budget(config, 100), Budget(config, 100)
    course, waiting = [], []
    for round in range(4):
        course.append((prompt.progress(round), late.progress(round)))
        assert prompt.is_over(round) == late.is_over(round)
        report = report_of(round)
        figures = prompt.figures(report, 0.0, ProcessGroup()).tolist()
        prompt.add(report, figures)
        waiting.append((report, figures))
        if len(waiting) > 1:
            late.add(*waiting.pop(0))
    assert [mine for mine, _ in course] == [theirs for _, theirs in course]
    assert course[-1][0] > course[-2][0] > 0


def test_minutes_are_those_of_the_first_worker():
    budget = Budget(small_config(strategy="fixed", budget_minutes=0.5), 100)
    report = report_of(0)
    workers = [SimpleNamespace(is_first=first, size=2) for first in (True, False)]
    figures = sum(budget.figures(report, 12.0, group) for group in workers)
    budget.add(report, figures.tolist())
    assert budget.spent == 12.0
    assert budget.share == pytest.approx(12 / 30)
    assert not budget.is_over(2)
    budget.add(report_of(1), [12.0])
    assert budget.is_over(3), "24 of 30 seconds: half of another such round would be too much"


def test_minutes_end_a_run(tmp_path):
    config = small_config(epochs=1000, strategy="fixed", budget_minutes=0.02)
    summary = train_here(config, RunFolder.create(tmp_path / "run", config))
    assert 0 < summary["train_seconds"] < 30
    assert summary["rounds"] > 1


def test_validation_ends_a_run_that_gets_no_better(tmp_path):
    config = small_config(
        epochs=50,
        strategy="fixed",
        optim__lr=1e-12,
        data__val_fraction=0.2,
        stop_on="validation",
        stop_patience=3,
    )
    folder = RunFolder.create(tmp_path / "run", config)
    train_here(config, folder, stop_epoch=2)
    summary = train_here(config, folder)
    epochs = [r for r in records(folder) if r["kind"] == "epoch"]
    assert [r["epochs_without_progress"] for r in epochs] == [0, 1, 2, 3]
    assert summary["stopped_on"] == "validation"
    assert summary["budget_left"] == pytest.approx(1 - 4 / 50)


def test_a_gain_that_is_gone_ends_a_run():
    stopping = EarlyStopping(small_config(stop_on="gain", stop_patience=2))
    for gain, over in ((1.0, False), (-0.1, False), (0.2, False), (0.0, False), (-1.0, True)):
        stopping.update(None, gain)
        assert stopping.is_over == over, gain
    again = EarlyStopping(small_config(stop_on="gain", stop_patience=2))
    again.load_state_dict(stopping.state_dict())
    assert again.is_over


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"budget_passes": -1.0}, "--budget-passes: -1 is out of range"),
        ({"budget_passes": 5.0, "budget_minutes": 2.0}, "--budget-minutes: 2 stands beside --budget-passes"),
        ({"stop_on": "gain"}, "--stop-on: 'gain' needs the gain"),
        (
            {"stop_on": "validation", "data__val_fraction": 0.0},
            "--stop-on: 'validation' has no validation images",
        ),
        ({"stop_patience": 2}, "--stop-patience: 2 has no effect"),
    ],
)
def test_lengths_that_cannot_be_are_refused(changes, told):
    with pytest.raises(UsageError) as refused:
        check(small_config(**changes))
    assert str(refused.value).startswith(told)


def test_two_workers_count_as_one():
    config = dataclasses.replace(small_config(strategy="fixed"), budget_passes=10.0)
    one, two = Budget(config, 100), Budget(config, 100)
    report = report_of(0)
    half = dataclasses.replace(report, sums={"num_steps": report.sums["num_steps"] / 2})
    group = SimpleNamespace(size=2, is_first=True)
    one.add(report, one.figures(report, 0.0, ProcessGroup()).tolist())
    two.add(half, (2 * two.figures(half, 0.0, group)).tolist())
    assert one.spent == two.spent > 0


@pytest.mark.parametrize(
    ("strategy_model", "low", "high"), [("small_cnn", 0.99, 1.01), ("tiny_cnn", 0.01, 0.5)]
)
def test_a_pass_of_the_strategy_net_is_weighed_by_its_arithmetic(strategy_model, low, high):
    config = small_config(model="small_cnn", strategy_model=strategy_model)
    env = make_game(config)
    learner = seeded_learner(config, env.space)
    before = learner.state_dict()
    assert low < strategy_pass(env, learner) < high
    assert learner.state_dict().keys() == before.keys()
    fixed = small_config(strategy="fixed")
    assert strategy_pass(make_game(fixed), learner) == 0.0
