"""Named settings with changes: the first argument of most functions of the API."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from lasat_ray.api.words import in_python
from lasat_ray.config import TrainConfig
from lasat_ray.config.changes import changed
from lasat_ray.config.config_file import SUFFIXES, config_of_file
from lasat_ray.config.json_io import flag
from lasat_ray.errors import UsageError
from lasat_ray.recipes import DEFAULT, get_recipe
from lasat_ray.runs.trust import check_code, of_a_run
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


def base_config(given: str | Path | TrainConfig | None, default: str = DEFAULT) -> TrainConfig:
    """A recipe's config by name, a file's over its recipe, or the config itself; ``default`` is the recipe
    where none is named."""
    if given is None:
        return get_recipe(default).config
    if isinstance(given, TrainConfig):
        return given
    if is_file(given):
        return config_of_file(Path(given), None, lambda name: get_recipe(name or default).config)[0]
    if isinstance(given, str):
        return get_recipe(given).config
    told = "a mapping; unpack it: **settings" if isinstance(given, Mapping) else "no config"
    raise UsageError(f"config: {type(given).__name__} is {told}, or give a recipe's name or a TrainConfig")


def is_file(given: object) -> TypeGuard[str | Path]:
    """Whether ``given`` is meant as a file of settings, not as a recipe's name."""
    return isinstance(given, Path) or (isinstance(given, str) and Path(given).suffix in SUFFIXES)


def check_trusted(given: object, config: TrainConfig, trust: bool, named: Collection[str]) -> None:
    """UsageError where ``given`` is a file of a run, maybe somebody else's, that names code, unless it is
    trusted or the caller, by the dotted names of settings, ``named`` it too."""
    source = of_a_run(given) if is_file(given) else None
    if source is not None:
        check_code(config, source, trust, [flag(path) for path in named])


def given_in(given: object) -> set[str]:
    """The settings that a file gives; none where ``given`` is no file."""
    if is_file(given):
        return config_of_file(Path(given), None, lambda name: get_recipe(name or DEFAULT).config)[1]
    return set()


def needs_of(config: TrainConfig) -> tuple[str, ...]:
    """Options that the config's recipe leaves to its user."""
    try:
        return get_recipe(config.recipe).needs
    except UsageError:
        return ()
