"""Test accuracies of a run and of published rows under one set of names: clean, fgsm, pgd10, cw, aa."""

from __future__ import annotations

from collections.abc import Sequence

from lasat_ray.recipes import Recipe
from lasat_ray.reporting.study import Record, Run

WORST = "worst"
"""Images that withstood every attack of an evaluation."""
STRENGTH = ("aa", "cw", "pgd50", "pgd20", "pgd10", "pgd3", "pgd2", "fgsm")
"""Attacks by strength, the strongest first."""
ORDER = ("clean", "fgsm", "pgd10", "pgd20", "pgd50", "cw", "aa", WORST)


def scores(run: Run) -> dict[str, float]:
    """Percent by attack: the evaluation's where the run was evaluated, else the summary's own."""
    if run.evaluation:
        return {name: 100 * entry["accuracy"] for name, entry in _figures(run.evaluation).items()}
    if run.summary:
        keys = {key: key.removeprefix("robust_acc_").removesuffix("_acc") for key in run.summary}
        return {name: 100 * run.summary[key] for key, name in keys.items() if "_acc" in key}
    return {}


def threat(run: Run) -> tuple[str, float]:
    """(norm, eps in [0,1] pixels) behind a run's robust figures: the evaluation's, else training's own."""
    attacks = (run.evaluation or {}).get("attacks", {}).values()
    found = [(entry["norm"], entry["eps"]) for entry in attacks if entry["eps"]]
    own = run.config["evaluation"]
    return found[0] if found else (own["norm"], own["eps"])


def intervals(run: Run) -> dict[str, tuple[float, float]]:
    """Wilson's intervals in percent, where the run was evaluated."""
    return {
        name: (100 * entry["interval"][0], 100 * entry["interval"][1])
        for name, entry in _figures(run.evaluation or {}).items()
    }


def _figures(evaluation: Record) -> dict[str, Record]:
    """What has an accuracy and an interval: every attack, and the worst case over those that attack.

    Evaluations of earlier versions have no worst case; nothing is made up for them.
    """
    attacks = evaluation.get("attacks", {})
    found = {name.replace("pgd-", "pgd"): entry for name, entry in attacks.items()}
    attacked = any(entry["eps"] for entry in attacks.values())
    return {**found, WORST: evaluation["worst_case"]} if attacked and "worst_case" in evaluation else found


def same_threat(recipe: Recipe, run: Run) -> bool:
    """Whether a published row and a run's figures are about the same norm and eps."""
    return threat(run) == (recipe.config.evaluation.norm, recipe.config.evaluation.eps)


def reported_row(recipe: Recipe | None) -> dict[str, float]:
    """What was published for a recipe's row; empty where nothing was."""
    return dict(recipe.reported) if recipe else {}


def column_name(key: str) -> str:
    """``pgd10`` -> ``PGD-10``, as the tables write it."""
    known = {
        "clean": "Clean",
        "fgsm": "FGSM",
        "cw": "C&W",
        "aa": "AA",
        WORST: "Worst case",
        "time_min": "Time (min)",
    }
    return known.get(key) or key.replace("pgd", "PGD-").replace("apgd", "APGD")


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other beats in one figure without losing in the other; by the first."""
    front = [
        n
        for n, (x, y) in enumerate(points)
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)
    ]
    return sorted(front, key=lambda n: points[n])
