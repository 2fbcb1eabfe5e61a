"""config.json holds a config exactly, and says which field of which file is wrong."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasat_ray.config import OptimConfig, RewardConfig, TrainConfig
from lasat_ray.config.json_io import (
    BEFORE,
    config_from_json,
    config_to_json,
    flag,
    leaves,
    read_config,
    write_config,
)
from lasat_ray.errors import UserError
from lasat_ray.recipes import RECIPES

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_a_file(name, tmp_path):
    config = RECIPES[name].config
    write_config(config, tmp_path / "config.json")
    read = read_config(tmp_path / "config.json")
    assert read == config
    assert list(read.attack.grid) == list(config.attack.grid)


@given(lr=FINITE, alpha=FINITE, milestones=st.lists(FINITE).map(tuple))
def test_floats_and_tuples_are_kept_exactly(lr, alpha, milestones):
    config = TrainConfig(optim=OptimConfig(lr=lr, milestones=milestones), reward=RewardConfig(alpha=alpha))
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_a_whole_number_in_the_file_is_a_float_where_the_field_is_one():
    data = config_to_json(TrainConfig())
    data["reward"]["alpha"] = 2
    alpha = config_from_json(data).reward.alpha
    assert alpha == 2.0
    assert isinstance(alpha, float)


def _remove(data, path):
    *groups, last = path.split(".")
    for group in groups:
        data = data[group]
    return data.pop(last)


@pytest.mark.parametrize("path", [path for path, _ in leaves(TrainConfig()) if path not in BEFORE])
def test_any_missing_field_is_named(path):
    data = config_to_json(TrainConfig())
    _remove(data, path)
    with pytest.raises(UserError, match=f"my.json: field {path} is missing"):
        config_from_json(data, "my.json")


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (None, "epochs", 1.5),
        (None, "epochs", True),
        (None, "epochs", "3"),
        (None, "epochs", None),
        (None, "strategy", "clever"),
        ("data", "max_train", "all"),
        ("data", "flip", 1),
        ("attack", "grid", [1]),
        ("attack", "grid", {"eps": "3..5"}),
        ("optim", "milestones", 3),
        ("optim", "milestones", ["x"]),
        ("reward", "alpha", True),
    ],
)
def test_a_wrong_type_is_named_with_its_field(group, name, value):
    data = config_to_json(TrainConfig())
    (data[group] if group else data)[name] = value
    path = f"{group}.{name}" if group else name
    with pytest.raises(UserError, match=f"my.json: field {path} is .*; it takes"):
        config_from_json(data, "my.json")


@pytest.mark.parametrize(("group", "shown"), [(None, "epoch"), ("optim", "optim.epoch")])
def test_an_unknown_field_is_named(group, shown):
    data = config_to_json(TrainConfig())
    (data[group] if group else data)["epoch"] = 3
    with pytest.raises(UserError, match=f"my.json: field {shown} is unknown"):
        config_from_json(data, "my.json")


def test_a_group_that_is_no_object_is_named():
    data = config_to_json(TrainConfig())
    data["optim"] = 3
    with pytest.raises(UserError, match=r"my\.json: optim is not a JSON object"):
        config_from_json(data, "my.json")


@pytest.mark.parametrize("content", [None, "", "{", "[]", "\xff"])
def test_an_unusable_file_is_named_in_one_line(content, tmp_path):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json: ") as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


def test_a_number_that_json_has_no_word_for_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_config(replace(TrainConfig(), optim=OptimConfig(lr=float("nan"))), tmp_path / "config.json")


def test_the_walk_over_the_fields_spells_them_as_the_command_line():
    found = dict(leaves(TrainConfig()))
    assert found["reward.l1_weight"] == 1.0
    assert flag("reward.l1_weight") == "--reward.l1-weight"
    assert "data" not in found
