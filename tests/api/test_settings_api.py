"""Settings by name: recipe(), its changes in their two spellings, types and nearest names."""

from __future__ import annotations

import numpy as np
import pytest

import lasat_ray
from lasat_ray import UsageError
from lasat_ray.config import TrainConfig
from lasat_ray.config.changes import changed, settings
from lasat_ray.config.json_io import config_to_json, leaves


def test_a_group_and_dotted_names_say_the_same():
    grouped = lasat_ray.recipe("digits", epochs=3, optim={"lr": 0.05, "milestones": [1, 2]})
    dotted = lasat_ray.recipe(
        "digits", epochs=np.int64(3), **{"optim.lr": 0.05, "optim.milestones": (1.0, 2)}
    )
    assert grouped == dotted and grouped.optim.lr == 0.05 and grouped.optim.momentum == dotted.optim.momentum


def test_budgets_and_grids_are_written_as_on_the_command_line():
    config = lasat_ray.recipe(
        "digits", **{"attack.eps": "4/255", "attack.grid": "eps=3..5/255 num_steps=2..4"}
    )
    same = {"eps": "3..5/255", "num_steps": [2, 3, 4]}
    assert config == lasat_ray.recipe("digits", attack={"eps": 4 / 255, "grid": same})
    assert config.attack.grid["eps"] == (3 / 255, 4 / 255, 5 / 255)


def test_a_config_can_be_changed_further_and_reads_back_from_its_json():
    config = lasat_ray.recipe("digits", seed=3)
    assert lasat_ray.recipe(config, epochs=2).seed == 3
    assert changed(TrainConfig(), config_to_json(config)) == config


def test_every_setting_has_a_type_and_takes_its_own_value():
    config = TrainConfig()
    assert set(settings()) == {path for path, _ in leaves(config)}
    for path, value in leaves(lasat_ray.recipe("digits")):
        assert dict(leaves(changed(config, {path: value})))[path] == value


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"optim.momentun": 1}, "optim.momentun: is not a setting; did you mean optim.momentum"),
        ({"optim": {"momentun": 1}}, "optim.momentun: is not a setting; did you mean optim.momentum"),
        ({"alpha": 1}, "alpha: is not a setting; did you mean reward.alpha?"),
        ({"zzz": 1}, "zzz: is not a setting; python -m lasat_ray.train --help-all shows all"),
        ({"epochs": True}, "epochs: True is not accepted; give a whole number"),
        ({"epochs": 3.0}, "epochs: 3.0 is not accepted; give a whole number"),
        ({"data.flip": 1}, "data.flip: 1 is not accepted; give True or False"),
        ({"strategy": "x"}, "strategy: 'x' is not accepted; give one of: learned"),
        ({"attack.eps": "8/0"}, "attack.eps: '8/0' is not a budget; write it as 8/255 or 0.031"),
        ({"attack.eps": 8.0}, "attack.eps: 8 is out of range; give a budget above 0"),
        ({"attack.grid": {"speed": 3}}, "attack.grid: 'speed' is not a field"),
        ({"attack.grid": 3}, "attack.grid: 3 is not accepted"),
        ({"optim.milestones": "a"}, "optim.milestones: 'a' is not accepted; give a number or a list of them"),
    ],
)
def test_a_wrong_change_is_one_line(changes, line):
    with pytest.raises(UsageError) as caught:
        lasat_ray.recipe("digits", **changes)
    assert str(caught.value).startswith(line)


def test_a_wrong_recipe_is_one_line():
    with pytest.raises(UsageError, match=r"^recipe: 'digts' is unknown; did you mean digits"):
        lasat_ray.recipe("digts")
    with pytest.raises(UsageError, match=r"^config: dict is a mapping; unpack it"):
        lasat_ray.recipe({"epochs": 3})
