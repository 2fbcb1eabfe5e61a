"""What a recipe is: a config with a name and, where a publication has that run, its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lasat_ray.config import TrainConfig
from lasat_ray.recipes.paper_numbers import Entry


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Named settings. ``reported`` holds published percentages (``time_min``: minutes), keyed
    clean, fgsm, pgd10, pgd20, pgd50, cw, aa; nothing here was measured by this project.

    ``follows`` says whose settings were taken where the paper and its code differ; it is empty
    where there was nothing to choose between. ``needs``: options that only the user can give, and
    without which the run is refused. ``entry``: the place in a public leaderboard.
    """

    name: str
    config: TrainConfig
    summary: str
    table: str | None = None
    row: str | None = None
    reported: dict[str, float] = field(default_factory=dict)
    follows: Literal["paper", "code", ""] = ""
    needs: tuple[str, ...] = ()
    entry: Entry | None = None
