"""Clean and robust accuracy of each class."""

from __future__ import annotations

import numpy as np

from lasat_ray.reporting.figure import Bars, Figure, Panel
from lasat_ray.reporting.study import Study, net_budgets

MOST = 20  # classes that bars can still show


def per_class(study: Study) -> Figure | None:
    """None where no net was asked, or there are too many classes for bars."""
    panels, facts = [], None
    for title, key in (("Clean", "predicted"), ("Under attack", "predicted_adv")):
        marks = []
        for group in study.groups:
            found = [study.nets[name] for name in group.names if name in study.nets]
            if not found or len(found[0]["class_names"]) > MOST:
                continue
            facts = found[0]
            y, seen = (np.concatenate([np.array(f[name]) for f in found]) for name in ("y", key))
            some = [c for c in range(len(facts["class_names"])) if (y == c).any()]
            marks.append(
                Bars(
                    name=group.label,
                    runs=group.names,
                    color=group.color,
                    x=[facts["class_names"][c] for c in some],
                    y=[100 * float((seen[y == c] == c).mean()) for c in some],
                )
            )
        panels.append(Panel(title=title, marks=marks, x_label="class", y_labels=["accuracy, %"]))
    if facts is None:
        return None
    return Figure(
        slug="per-class",
        title="Class by class",
        about="Robustness is rarely shared evenly: classes that lie close together lose most.",
        panels=panels,
        note=f"{facts['attack']} at {net_budgets(study)}; first {facts['n']} test images of each run, seeds "
        "pooled.",
        wide=True,
    )
