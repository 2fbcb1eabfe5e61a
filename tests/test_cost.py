"""The counted cost is what the nets really passed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from lasat_ray.update.cost import (
    constant_passes,
    counted_passes,
    expected_passes,
    round_passes,
    validation_passes,
)
from tests.support.helpers import CPU, Counted, small_config

ONE_COUNT = {"eps": (0.1, 0.2), "num_steps": (2.0,)}
CASES = {
    "fixed": {"strategy": "fixed"},
    "learned": {"update_interval": 2},
    "influence": {"reward__credit": "influence", "reward__standardize": True, "update_interval": 3},
    "rate, held out": {
        **{"reward__credit": "influence", "reward__standardize": True, "update_interval": 2},
        **{"reward__objective": "rate", "reward__outcome": "heldout", "reward__outcome_images": 8},
    },
    "ppo": {"learner": "ppo", "update_interval": 2, "policy__update_epochs": 3},
    "ppo that may stop": {"learner": "ppo", "policy__target_kl": 1e-9},
    "mirror-descent": {"learner": "mirror-descent", "update_interval": 2},
    "a2c": {"learner": "a2c"},
    **{name: {"learner": name} for name in ("ucb", "thompson")},
    "exp3": {"learner": "exp3", "policy__min_exploration": 0.05},
    "greedy": {"policy__baseline": "greedy", "reward__lookahead": "copy", "attack__grid": ONE_COUNT},
    "sb3:A2C": {"learner": "sb3:A2C", "precision": "fp32"},
    "sb3:PPO": {"learner": "sb3:PPO", "precision": "fp32", "policy__update_epochs": 3},
    "restarts": {"reward__ref_restarts": 2},
    # A rehearsal draws steps of its own, which no record tells: they are taken to be the round's.
    "copy": {"reward__lookahead": "copy", "attack__grid": ONE_COUNT},
    "trades": {"method": "trades", "update_interval": 2},
    "mart": {"method": "mart", "strategy": "random"},
    "ikl": {"method": "ikl", "update_interval": 2},
    "class-wise": {"strategy": "class-wise", "learner": "ppo", "update_interval": 2},
    "class-wise, rate": {
        **{"strategy": "class-wise", "reward__credit": "influence", "reward__standardize": True},
        **{"reward__objective": "rate", "reward__outcome": "heldout", "reward__outcome_images": 8},
    },
    "margin": {"strategy": "margin"},
    "curriculum": {"strategy": "curriculum"},
    "fat": {"method": "fat", "strategy": "random"},
    "dart": {"method": "dart", "strategy": "fixed", "attack__num_steps": 6},
    "one step, random start": {"strategy": "fixed", "attack__num_steps": 1, "attack__step_size": 0.25},
    "awp": {"strategy": "fixed", "loss__awp_gamma": 0.01, "loss__awp_warmup": 1},
    "clean": {"method": "clean", "strategy": "fixed"},
}


@pytest.mark.parametrize("case", CASES)
def test_counted_passes_are_those_of_the_nets(case, tmp_path):
    if case.startswith("sb3:"):
        pytest.importorskip("stable_baselines3")
    config = small_config(**{"precision": "fp64", **CASES[case]})
    folder = RunFolder.create(tmp_path / "run", config)
    trainer = Trainer(config, RunContext(group=ProcessGroup(), device=CPU, folder=folder))
    target, copies = Counted(trainer.env.target.net), []
    trainer.env.target.net = target
    stepped = trainer.env.target.stepped_copy

    def stepped_copy(*given):
        born = target.cost  # a copy of the net counts on from here
        copies.append((stepped(*given), born))
        return copies[-1][0]

    trainer.env.target.stepped_copy = stepped_copy
    # A table of classes is looked up: no image passes a net for it.
    features = None if config.strategy == "class-wise" else watch_strategy_net(trainer.learner)
    trainer.end_epoch = lambda epoch: trainer.recorder.flush()  # validation is no part of the cost
    trainer.finish = lambda: {}
    trainer.run()
    rounds = [r for r in map(json.loads, folder.metrics.read_text().splitlines()) if r["kind"] == "round"]
    counted = counted_passes(config, rounds)
    spent = target.cost + sum(copy.cost - born for copy, born in copies)
    assert counted[0] == pytest.approx(spent)
    # The first update of a value net looks once more, after it was set to the mean reward.
    begun = config.batch_size if features and getattr(trainer.learner, "value_head", None) else 0
    assert counted[1] + begun == pytest.approx(features.cost if features else 0)


def watch_strategy_net(learner):
    """Put a counter before the learner's backbone; None where it has none."""
    if hasattr(learner, "net"):
        holder, name = learner.net, "features"
    elif hasattr(learner, "model"):
        holder, name = learner.model.policy.features_extractor, "features"
    else:
        return None
    counter = Counted(getattr(holder, name))
    setattr(holder, name, counter)
    return counter


def test_expected_passes_are_the_counted_ones_where_steps_are_equal():
    config = small_config(strategy="fixed", attack__num_steps=10)
    assert expected_passes(config, rounds_per_epoch=3) == 2 * 3 * 32 * 23
    rounds = [{"round": n, "epoch": (n + 1) / 3, "num_steps": 10.0} for n in range(6)]
    assert counted_passes(config, rounds) == (2 * 3 * 32 * 23, 0)
    assert counted_passes(config, rounds, first=3) == (3 * 32 * 23, 0)


def test_a_round_of_the_paper_costs_21_and_its_reward_24_more():
    config = small_config(reward__ref_num_steps=10)
    assert sum(round_passes(config, steps=8.5, paid=False)) == 21
    assert sum(round_passes(config, steps=8.5, paid=True)) == 21 + 20 + 2 + 2 + 1 / 8


def test_an_image_that_a_rule_stopped_was_looked_at_once_more():
    config = small_config(strategy="fixed", method="dart", attack__num_steps=10)
    record = {"round": 0, "epoch": 1.0, "num_steps": 10.0, "steps_taken": 4.0}
    assert counted_passes(config, [record])[0] == 32 * (2 * 5 + 3)
    assert counted_passes(config, [{**record, "steps_taken": 10.0}])[0] == 32 * 23


def test_validation_is_counted_apart():
    config = small_config(evaluation__val_num_steps=10, evaluation__test_num_steps=(10,))
    assert validation_passes(config, n_val=10, n_test=20) == 2 * 10 * 22 + 20 * 22


def test_passes_of_a_constant_attack_are_those_of_the_run_that_takes_it() -> None:
    """PGD-AT with 10 steps: 23 passes per image."""
    config = small_config(batch_size=20, attack__num_steps=10)
    assert constant_passes(config, 30) == 30 * 20 * 23
    assert constant_passes(dataclasses.replace(config, strategy="fixed"), 30) is None
    one = {"eps": (0.1, 0.2), "num_steps": (3.0,), "step_size": (0.1,)}
    assert constant_passes(small_config(attack__grid=one), 30) is None
