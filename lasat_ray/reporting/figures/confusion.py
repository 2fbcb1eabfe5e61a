"""What the net takes attacked images for."""

from __future__ import annotations

import numpy as np

from lasat_ray.reporting.figure import Figure, Heat, Panel
from lasat_ray.reporting.figures.per_class import MOST
from lasat_ray.reporting.study import Study, net_budgets


def confusion(study: Study) -> Figure | None:
    """None where no net was asked, or there are too many classes to show."""
    panels, facts = [], None
    for group in study.groups:
        found = [study.nets[name] for name in group.names if name in study.nets]
        if not found or len(found[0]["class_names"]) > MOST:
            continue
        facts = found[0]
        names = facts["class_names"]
        counts = np.zeros((len(names), len(names)))
        for f in found:
            np.add.at(counts, (np.array(f["y"]), np.array(f["predicted_adv"])), 1)
        shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        heat = Heat(
            name="share",
            runs=group.names,
            color=group.color,
            x=names,
            y=names,
            z=shares.round(1).tolist(),
            top=100.0,
            unit="% of the class",
            text=True,
        )
        panels.append(
            Panel(
                title=group.label,
                marks=[heat],
                x_label="taken for",
                y_labels=["class"],
                runs=group.names,
                square=True,
                upside_down=True,
                height=400,
            )
        )
    if facts is None:
        return None
    return Figure(
        slug="confusion-under-attack",
        title="Confusion under attack",
        about="Rows are true classes, columns what the net sees once the image is attacked; the diagonal is "
        "robust accuracy.",
        panels=panels,
        note=f"{facts['attack']} at {net_budgets(study)}, untargeted; percent of each row, seeds pooled.",
    )
