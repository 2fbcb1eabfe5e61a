"""Tables in the shape of the paper's: a row per method, a column per attack, the best in bold.

``measured`` and ``reported`` rows never share a line, and compete only among themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lasat_ray.config import LEARNED
from lasat_ray.config.json_io import config_to_json
from lasat_ray.config.units import format_threat
from lasat_ray.evaluation.subject import dataset_label
from lasat_ray.recipes import RECIPES, Recipe
from lasat_ray.reporting.figures.cost import seconds
from lasat_ray.reporting.scores import ORDER, intervals, same_threat, scores, threat
from lasat_ray.reporting.study import Group, Run, Study, flatten, mean_and_std

Source = Literal["measured", "reported"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """``values`` by column; ``shown`` as the cell reads; ``runs`` behind it, none if reported."""

    label: str
    source: Source
    runs: tuple[str, ...]
    values: dict[str, float]
    shown: dict[str, str]
    color: str = ""
    checks: dict[str, bool] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    slug: str
    title: str
    columns: list[str]
    lines: list[Line]
    notes: list[str]
    ranked: bool = True
    """Whether its lines compete, so that the best is in bold."""

    def best(self, column: str, source: Source) -> float | None:
        """The value in bold: the largest of its kind, the smallest where it is time."""
        rows = [line.values for line in self.lines if line.source == source and self.ranked]
        found = [values[column] for values in rows if column in values]
        if len(found) < 2:
            return None
        return min(found) if column == "time_min" else max(found)


def all_tables(study: Study) -> list[Table]:
    """One table for each published table that a run belongs to, one for all others."""
    tables: dict[str, list[Group]] = {}
    for group in study.groups:
        recipe = RECIPES.get(group.config["recipe"])
        tables.setdefault((recipe.table if recipe else None) or "", []).append(group)
    return [_table(name, groups) for name, groups in tables.items()]


def _table(name: str, groups: list[Group]) -> Table:
    published = [r for r in RECIPES.values() if name and r.table == name]
    several = len({threat(run) for group in groups for run in group.runs}) > 1
    lines = [_reported(recipe) for recipe in published] + [_measured(group, several) for group in groups]
    present = {column for line in lines for column in line.values}
    columns = [c for c in ORDER if c in present]
    columns[len(columns) :] = sorted(present - set(ORDER) - {"time_min"})
    data = {(g.config["dataset"], *threat(run)) for g in groups for run in g.runs}
    where = "; ".join(f"{dataset_label(d)}, {format_threat(norm, eps)}" for d, norm, eps in sorted(data))
    return Table(
        slug=f"table-{name.lower().replace(' ', '-') or 'measured'}",
        title=f"{name or 'Test set'}: {where}",
        columns=[*columns, *(["time_min"] if "time_min" in present else [])],
        lines=_with_checks(lines, groups, published),
        notes=_notes(groups),
    )


def _measured(group: Group, several: bool) -> Line:
    """``several``: the table holds figures of more than one budget, so that each line names its own."""
    found, threats = [scores(run) for run in group.runs], sorted({threat(run) for run in group.runs})
    shared = [key for key in found[0] if all(key in row for row in found)]
    if len(threats) > 1:  # figures of two budgets have no mean
        shared = [key for key in shared if key == "clean"]
    values, shown = {}, {}
    for key in shared:
        values[key], std = mean_and_std([row[key] for row in found])
        shown[key] = f"{values[key]:.1f} ± {std:.1f}" if len(found) > 1 else f"{values[key]:.1f}"
        if len(found) == 1 and key in intervals(group.runs[0]):
            low, high = intervals(group.runs[0])[key]
            shown[key] += f" ({low:.1f} to {high:.1f})"
    values["time_min"], _ = mean_and_std([seconds(run) / 60 for run in group.runs])
    shown["time_min"] = f"{values['time_min']:.1f}"
    count = f", {len(group.runs)} seeds" if len(group.runs) > 1 else ""
    unfinished = sum(run.summary is None for run in group.runs)
    late = f", {unfinished} unfinished" if unfinished else ""
    budget = ", " + " and ".join(format_threat(*t) for t in threats) if several else ""
    return Line(
        label=f"{group.label}{count}{late}{budget}",
        source="measured",
        runs=group.names,
        values=values,
        shown=shown,
        color=group.color,
        checks=_terms(group.config["strategy"], group.config["reward"]),
    )


def _reported(recipe: Recipe) -> Line:
    values = dict(recipe.reported)
    reward = {
        "l1_weight": recipe.config.reward.l1_weight,
        "alpha": recipe.config.reward.alpha,
        "beta": recipe.config.reward.beta,
    }
    return Line(
        label=recipe.row or recipe.name,
        source="reported",
        runs=(),
        values=values,
        shown={key: f"{value:g}" for key, value in values.items()},
        checks=_terms(recipe.config.strategy, reward),
    )


def _terms(strategy: str, reward: dict[str, float]) -> dict[str, bool] | None:
    if strategy not in LEARNED:
        return None
    names = {"L1": "l1_weight", "L2": "alpha", "L3": "beta"}
    return {term: bool(reward[name]) for term, name in names.items()}


def _with_checks(lines: list[Line], groups: list[Group], published: list[Recipe]) -> list[Line]:
    """The lines, with check marks only where the reward's terms are what differs (Table 6)."""
    kinds = {tuple(line.checks.values()) for line in lines if line.checks}
    if len(kinds) > 1:
        return lines
    kept = ("label", "source", "runs", "values", "shown", "color")
    return [Line(**{name: getattr(line, name) for name in kept}) for line in lines]


def _notes(groups: list[Group]) -> list[str]:
    notes = []
    evaluated = [run for group in groups for run in group.runs if run.evaluation]
    if evaluated:
        notes.append(
            "Evaluated runs: an image counts as broken at the first step that fools the net; intervals are "
            "Wilson's at 95 %."
        )
        notes += _suites(evaluated)
        notes += [
            f"{run.name}: evaluation is unreliable ({'; '.join(run.evaluation['sanity']['reasons'])})."
            for run in evaluated
            if run.evaluation and run.evaluation["sanity"]["verdict"] != "passed"
        ]
    if any(run.summary and not run.evaluation for group in groups for run in group.runs):
        notes.append("Runs that were not evaluated: training's own test, PGD where the last step counts.")
    for group in groups:
        recipe = RECIPES.get(group.config["recipe"])
        changed = _changes(group, recipe) if recipe else []
        if recipe and not all(same_threat(recipe, run) for run in group.runs):
            asked = {format_threat(*threat(run)) for run in group.runs}
            changed.insert(0, f"evaluated at {' and '.join(sorted(asked))}")
        if recipe and recipe.reported and changed:
            notes.append(f"{group.label} is not the published run: {', '.join(changed[:8])}.")
    return notes


def _suites(runs: list[Run]) -> list[str]:
    """What every worst case is the worst of; figures of different suites are not about the same thing."""
    found: dict[str, list[str]] = {}
    for run in runs:
        worst = (run.evaluation or {}).get("worst_case", {})
        names = [name for name in worst.get("attacks", ()) if name != "clean"]
        if names:
            found.setdefault(f"{', '.join(names)}, {worst['n']} images", []).append(run.name)
    return [
        f"Worst case{' of ' + ', '.join(names) if len(found) > 1 else ''}: images that withstood {suite}."
        for suite, names in found.items()
    ]


def _changes(group: Group, recipe: Recipe) -> list[str]:
    """``epochs 4 instead of 110``, for every setting that is not the recipe's."""
    theirs, ours = flatten(config_to_json(recipe.config)), flatten(group.config)
    other = [name for name in ours if ours[name] != theirs.get(name)]
    return [f"{name} {ours[name]} instead of {theirs.get(name)}" for name in other]
