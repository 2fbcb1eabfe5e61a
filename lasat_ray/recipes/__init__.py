"""Named configs. ``RECIPES[name].config`` is complete; the command line overrides single fields."""

from __future__ import annotations

import difflib

from lasat_ray.errors import UsageError
from lasat_ray.recipes.cpu import cifar10_cpu
from lasat_ray.recipes.digits import digits, digits_rate
from lasat_ray.recipes.images import images, images_las_at
from lasat_ray.recipes.leaderboards import leaderboard_recipes
from lasat_ray.recipes.one_step import one_step_recipes
from lasat_ray.recipes.paper import paper_recipes
from lasat_ray.recipes.rate import rate_sibling
from lasat_ray.recipes.recent import recent_recipes
from lasat_ray.recipes.recipe import Recipe

__all__ = ["DEFAULT", "RECIPES", "Recipe", "find_recipe", "get_recipe"]

DEFAULT = "digits-rate"
"""What the commands run where nobody names a recipe."""

_TABLES = (None, *(f"Table {n}" for n in range(1, 8)), "GTSRB", "AWP ablation")


def _place(recipe: Recipe) -> tuple[int, bool]:
    """Table after table, then leaderboards; the paper's own rows last, as it prints them."""
    table = _TABLES.index(recipe.table) if recipe.table in _TABLES else len(_TABLES)
    return table, (recipe.row or "").startswith("LAS")


_ALL = [
    digits_rate(),
    digits(),
    images(),
    images_las_at(),
    cifar10_cpu(),
    *one_step_recipes(),
    *paper_recipes(),
    *leaderboard_recipes(),
    *recent_recipes(),
]
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in sorted(_ALL, key=_place)}


def find_recipe(name: str) -> Recipe | None:
    """The recipe of that name, or None. ``NAME-rate`` is recipe NAME, whose strategy is learned, with the
    rate objective."""
    if name in RECIPES:
        return RECIPES[name]
    sibling = RECIPES.get(name.removesuffix("-rate"))
    if sibling is None or sibling.config.strategy != "learned" or sibling.config.reward.objective == "rate":
        return None
    return rate_sibling(sibling)


def get_recipe(name: str) -> Recipe:
    """The recipe of that name, as ``find_recipe`` knows it; UsageError with the closest name otherwise."""
    recipe = find_recipe(name)
    if recipe is not None:
        return recipe
    close = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.3)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"--recipe: '{name}' is unknown; {hint}--list-recipes shows all")
