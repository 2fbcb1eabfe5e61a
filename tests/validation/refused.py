"""What the tests of validation share: a config with some paths set, and the line that refuses it."""

import dataclasses

import pytest

from lasat_ray.errors import UsageError
from lasat_ray.learners import LEARNERS
from lasat_ray.methods import METHODS
from lasat_ray.recipes import get_recipe
from lasat_ray.validation import check


def changed(config, changes):
    """A config with some paths set: ``{"reward.alpha": 2.0}``."""
    for path, value in changes.items():
        group, _, name = path.rpartition(".")
        if group:
            value = dataclasses.replace(getattr(config, group), **{name: value})
        config = dataclasses.replace(config, **{group or name: value})
    return config


PAPER = {"reward.credit": "image", "reward.standardize": False}
"""The paper's reward, which the digits recipe does not take."""


def refusal(changes, recipe="digits"):
    with pytest.raises(UsageError) as caught:
        check(changed(get_recipe(recipe).config, {**PAPER, **changes}), METHODS, LEARNERS)
    assert caught.value.status == 2
    return str(caught.value)
