"""Robust accuracy against the size of the budget."""

from __future__ import annotations

from lasat_ray.config.units import NORM_NAMES
from lasat_ray.reporting.figure import Curve, Figure, Mark, Panel
from lasat_ray.reporting.study import Study, over_seeds


def eps_curve(study: Study) -> Figure | None:
    """None where no net was asked."""
    marks: dict[str, list[Mark]] = {}
    facts = None
    for group in study.groups:
        found = [study.nets[name] for name in group.names if name in study.nets]
        x, y, low, high = over_seeds(
            [[(e, 100 * a) for e, a in zip(f["eps"], f["accuracy"], strict=True)] for f in found]
        )
        if not x:
            continue
        facts = found[0]
        band = {"low": low, "high": high} if len(found) > 1 else {}
        marks.setdefault(facts["norm"], []).append(
            Curve(name=group.label, runs=group.names, color=group.color, x=x, y=y, **band)  # type: ignore[arg-type]
        )
    if facts is None:
        return None
    panels = [
        Panel(
            title=NORM_NAMES[norm] if len(marks) > 1 else "",
            marks=drawn,
            x_label=f"{NORM_NAMES[norm]} budget eps, in [0,1] pixels",
            y_labels=["accuracy, %"],
            height=340,
        )
        for norm, drawn in marks.items()
    ]
    return Figure(
        slug="accuracy-against-eps",
        title="Robustness against the budget",
        about="How accuracy falls as the attacker may change more. A curve that stays up far beyond the "
        "budget of training would be a sign of masked gradients, not of robustness.",
        panels=panels,
        note=f"{facts['attack']}; an image once fooled counts as fooled at every larger budget. First "
        f"{facts['n']} test images; an upper bound on robustness.",
        wide=True,
    )
