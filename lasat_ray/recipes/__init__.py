"""Named configs. ``RECIPES[name].config`` is complete; the command line overrides single fields."""

from __future__ import annotations

import difflib

from lasat_ray.errors import UsageError
from lasat_ray.recipes.cpu import cifar10_cpu
from lasat_ray.recipes.digits import digits
from lasat_ray.recipes.leaderboards import leaderboard_rows
from lasat_ray.recipes.published import published
from lasat_ray.recipes.recipe import Recipe
from lasat_ray.recipes.rows import other_rows

__all__ = ["RECIPES", "Recipe", "get_recipe"]

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in [digits(), cifar10_cpu(), *published(), *other_rows(), *leaderboard_rows()]
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name; UsageError with the closest name otherwise."""
    if name in RECIPES:
        return RECIPES[name]
    close = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.3)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"--recipe: '{name}' is unknown; {hint}--list-recipes shows all")
