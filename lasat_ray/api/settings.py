"""Named settings with changes: the first argument of most functions of the API."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lasat_ray.api.words import in_python
from lasat_ray.config import TrainConfig
from lasat_ray.config.changes import changed
from lasat_ray.config.config_file import SUFFIXES, config_of_file
from lasat_ray.errors import UsageError
from lasat_ray.recipes import get_recipe
from lasat_ray.validation import check


@in_python
def recipe(name: str | Path | TrainConfig | None = None, /, **changes: Any) -> TrainConfig:
    """The settings of a recipe, with changes.

    ``name``: as in ``--recipe`` (``python -m lasat_ray.train --list-recipes``), a file of settings (YAML,
    TOML or JSON, any run's config.json too), or a config to change further; None is the default recipe.
    ``changes``: settings by their names in ``config.json``. A group takes a dict, and dotted names can be
    unpacked: ``optim={"lr": 0.05}`` and ``**{"optim.lr": 0.05}`` say the same. Budgets may be strings
    (``"8/255"``), and the grid too (``"eps=3..15/255 num_steps=3..14"``).

    UsageError in one line, naming the nearest setting, for a name that is none, for a value of another type
    and for one that cannot work.
    """
    config = changed(base_config(name), changes)
    if not needs_of(config):
        check(config)
    return config


def base_config(given: str | Path | TrainConfig | None, default: str | None = None) -> TrainConfig:
    """A recipe's config by name, or the config itself; ``default`` or the program's where None is given."""
    if given is None:
        return get_recipe(default or TrainConfig().recipe).config
    if isinstance(given, TrainConfig):
        return given
    if isinstance(given, Path) or (isinstance(given, str) and Path(given).suffix in SUFFIXES):
        return config_of_file(Path(given), None, lambda name: get_recipe(name).config)[0]
    if isinstance(given, str):
        return get_recipe(given).config
    told = "a mapping; unpack it: **settings" if isinstance(given, Mapping) else "no config"
    raise UsageError(f"config: {type(given).__name__} is {told}, or give a recipe's name or a TrainConfig")


def given_in(given: object) -> set[str]:
    """The settings that a file gives; none where ``given`` is no file."""
    if isinstance(given, str | Path) and Path(given).suffix in SUFFIXES:
        return config_of_file(Path(given), None, lambda name: get_recipe(name).config)[1]
    return set()


def needs_of(config: TrainConfig) -> tuple[str, ...]:
    """Options that the config's recipe leaves to its user."""
    try:
        return get_recipe(config.recipe).needs
    except UsageError:
        return ()
