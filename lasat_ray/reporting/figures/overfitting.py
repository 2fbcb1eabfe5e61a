"""LAS-AT, Figure 1: robust accuracy on training and validation images over the epochs."""

from __future__ import annotations

from lasat_ray.config.units import format_threat
from lasat_ray.reporting.figure import Curve, Figure, Mark, Panel
from lasat_ray.reporting.study import Group, Study, by_dataset, over_seeds


def overfitting(study: Study) -> Figure | None:
    """None where no run was validated."""
    panels = []
    threats = {
        format_threat(g.config["evaluation"]["norm"], g.config["evaluation"]["eps"]) for g in study.groups
    }
    robust = f"Robust accuracy, {', '.join(sorted(threats))}"
    for title, last in ((robust, "robust"), ("Clean accuracy", "clean")):
        for of, groups in by_dataset(study.groups):
            marks = [mark for group in groups for mark in _marks(group, last)]
            if marks:
                panels.append(Panel(title=title + of, marks=marks, x_label="epoch", y_labels=["accuracy, %"]))
    if not panels:
        return None
    return Figure(
        slug="figure-1-robust-overfitting",
        title="Robust overfitting (Figure 1)",
        about="Solid: validation images. Dashed: training images. Where dashed goes on rising while solid "
        "falls, the net overfits robustly. Bands are one standard deviation over seeds.",
        panels=panels,
        note="PGD with the run's own evaluation steps (PGD-10 unless set otherwise), random start, last step "
        "counts. Training images: a fixed sample, at most 256, without augmentation.",
        wide=True,
    )


def _marks(group: Group, what: str) -> list[Mark]:
    marks: list[Mark] = []
    for part, dash in (("val", "solid"), ("train", "dash")):
        series = []
        for run in group.runs:
            pairs = []
            for record in run.of("epoch"):
                key = next((k for k in record if k.startswith(f"{part}_{what}")), None)
                if key:
                    pairs.append((record["epoch"], 100 * record[key]))
            series.append(pairs)
        x, y, low, high = over_seeds(series)
        name = f"{group.label}, {'validation' if part == 'val' else 'training'}"
        if x:
            band = {"low": low, "high": high} if len(group.runs) > 1 else {}
            marks.append(
                Curve(name=name, runs=group.names, color=group.color, x=x, y=y, dash=dash, **band)  # type: ignore[arg-type]
            )
        if len(group.runs) > 1 and part == "val":
            marks += [
                Curve(
                    name=f"{name}, seed {run.seed}",
                    runs=(run.name,),
                    color=group.color,
                    x=[x for x, _ in pairs],
                    y=[y for _, y in pairs],
                    faint=True,
                )
                for run, pairs in zip(group.runs, series, strict=True)
                if pairs
            ]
    return marks
