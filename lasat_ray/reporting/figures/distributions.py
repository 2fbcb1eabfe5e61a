"""LAS-AT, Figure 4: how often each value of each strategy field was chosen, epoch by epoch."""

from __future__ import annotations

from lasat_ray.config.units import field_name, format_value
from lasat_ray.reporting.figure import Figure, Heat, Panel
from lasat_ray.reporting.study import Group, Study


def distributions(study: Study) -> Figure | None:
    """None where every strategy is fixed."""
    panels = [panel for group in study.groups for panel in _panels(group)]
    if not panels:
        return None
    return Figure(
        slug="figure-4-strategy-distributions",
        title="How the strategies move (Figure 4)",
        about="Each column is an epoch; the stronger the colour, the more images were attacked with it. "
        "An even column is what a random choice gives.",
        panels=panels,
        note="Shares are over all training images of the epoch and all seeds of a row.",
    )


def _panels(group: Group) -> list[Panel]:
    panels = []
    for name, values in group.grid().items():
        counts = _counts(group, name)
        if len(values) < 2 or not counts:
            continue
        epochs = sorted(counts)
        shares = [[100 * c / max(sum(counts[e]), 1) for c in counts[e]] for e in epochs]
        top = max(max(column) for column in shares)
        heat = Heat(
            name=name,
            runs=group.names,
            color=group.color,
            x=epochs,
            y=[format_value(name, value) for value in values],
            z=[list(row) for row in zip(*shares, strict=True)],
            top=max(top, 200 / len(values)),
            unit="% of images",
        )
        label = field_name(name, group.config["attack"]["norm"])
        title = f"{label}: {group.label}"
        panels.append(
            Panel(title=title, marks=[heat], x_label="epoch", y_labels=[label], runs=group.names, height=280)
        )
    return panels


def _counts(group: Group, name: str) -> dict[int, list[float]]:
    """Epoch -> counts of each value, summed over the seeds that have come so far."""
    found: dict[int, list[float]] = {}
    for run in group.runs:
        for record in run.of("epoch"):
            counts = record.get("options", {}).get(name)
            if counts:
                before = found.get(record["epoch"], [0.0] * len(counts))
                found[record["epoch"]] = [a + b for a, b in zip(before, counts, strict=True)]
    return found
