"""Clean against robust accuracy on the test set, and who is beaten in both."""

from __future__ import annotations

from lasat_ray.config.units import format_threat
from lasat_ray.recipes import RECIPES
from lasat_ray.reporting.figure import Curve, Dots, Figure, Mark, Panel
from lasat_ray.reporting.scores import (
    STRENGTH,
    column_name,
    pareto_front,
    reported_row,
    same_threat,
    scores,
    threat,
)
from lasat_ray.reporting.study import Study, mean_and_std

GRAY = "#8b95a1"


_SHORT = 24  # letters of a name that finds room beside its point; longer ones stand in the legend


def pareto(study: Study) -> Figure | None:
    """None where no run was tested. The robust axis is the strongest attack that all of them met."""
    tested = [(run, scores(run)) for run in study.runs if "clean" in scores(run)]
    shared = [name for name in STRENGTH if tested and all(name in found for _, found in tested)]
    if not shared:
        return None
    attack = shared[0]
    threats = sorted({threat(run) for run, _ in tested})
    marks: list[Mark] = []
    centers: list[tuple[float, float]] = []
    for group in study.groups:
        members = [(run, found) for run, found in tested if run.name in group.names]
        # Seeds that were evaluated at another budget than the first have no mean with it.
        members = [pair for pair in members if threat(pair[0]) == threat(members[0][0])]
        points = [(found["clean"], found[attack]) for _, found in members]
        if not points:
            continue
        (clean, clean_std), (robust, robust_std) = (mean_and_std(v) for v in zip(*points, strict=True))
        centers.append((clean, robust))
        budget = f", {format_threat(*threat(members[0][0]))}" if len(threats) > 1 else ""
        for run, found in members:
            if len(points) > 1:
                where = {"x": [found["clean"]], "y": [found[attack]]}
                marks.append(
                    Dots(name=run.name, runs=(run.name,), color=group.color, size=6, faint=True, **where)  # type: ignore[arg-type]
                )
        marks.append(
            Dots(
                name=group.label,
                runs=group.names,
                color=group.color,
                x=[clean],
                y=[robust],
                x_err=[clean_std] if len(points) > 1 else (),
                y_err=[robust_std] if len(points) > 1 else (),
                text=[name if len(name := f"{group.label}{budget}") <= _SHORT else ""],
                size=13,
            )
        )
        recipe = RECIPES.get(group.config["recipe"])
        reported = reported_row(recipe)
        if recipe and same_threat(recipe, group.runs[0]) and "clean" in reported and attack in reported:
            name = f"{group.label}, reported"
            pair = {"x": [reported["clean"]], "y": [reported[attack]], "hollow": True, "text": ["reported"]}
            marks.append(Dots(name=name, runs=group.names, color=group.color, size=13, **pair))  # type: ignore[arg-type]
    front = sorted({centers[n] for n in pareto_front(centers)})
    if len(front) > 1:
        runs = tuple(run.name for run in study.runs)
        x, y = zip(*front, strict=True)
        marks.insert(0, Curve(name="not beaten in both", runs=runs, color=GRAY, x=x, y=y, dash="dot"))
    budgets = f" ({format_threat(*threats[0])})" if len(threats) == 1 else ""
    labels = ["clean accuracy, %", f"{column_name(attack)} accuracy{budgets}, %"]
    panel = Panel(title="", marks=marks, x_label=labels[0], y_labels=labels[1:], height=380)
    return Figure(
        slug="pareto",
        title="Clean against robust accuracy",
        about="Up and right is better. The dotted line joins the groups that no other beats in both; large "
        "points are means over seeds, bars one standard deviation, hollow points are reported by others.",
        panels=[panel],
        note="Test set, best checkpoint on validation.",
        wide=True,
    )
