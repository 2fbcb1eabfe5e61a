"""The clean-robust plane of a strategy study: what constant strategies reach, and where learned ones lie."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.studies.outcomes import by_label, percent

COLOURS = {
    "constant": "0.35",
    "random": "tab:brown",
    "influence": "tab:blue",
    "image": "tab:red",
    "batch": "tab:green",
}
MARKERS = {"a2c": "^", "ppo": "v", "mirror-descent": "D", "thompson": "*"}
"""Of a learner; REINFORCE, and what learns nothing, is a disc."""


def draw(record: dict[str, Any], file: Path) -> None:
    """Left all rows, right those that keep their clean accuracy, with standard errors over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = by_label(record["runs"])
    rows = {label: Row(label, found[label]) for label in record["rows"] if label in found}
    figure, (whole, near) = pyplot.subplots(1, 2, figsize=(11.5, 5.2), layout="constrained")
    front = sorted(row.at for row in rows.values() if row.kind == "constant" and "step=" not in row.label)
    for axes in (whole, near):
        axes.plot(*zip(*front, strict=True), "--", color=COLOURS["constant"], linewidth=1)
        for row in rows.values():
            style = {"color": row.colour, "marker": row.marker, "linestyle": "none", "markersize": 7}
            axes.errorbar(*row.at, row.errors[1], row.errors[0], elinewidth=0.5, **style)
        axes.set_xlabel("clean accuracy, %")
        axes.grid(alpha=0.3)
    for row in rows.values():
        if row.kind == "constant" and "step=" not in row.told:
            near_edge = {"ha": "right", "xytext": (-8, -4)} if row.at[0] > 98 else {"xytext": (8, -4)}
            whole.annotate(
                row.told, row.at, textcoords="offset points", fontsize=8, color="0.35", **near_edge
            )
    whole.set_ylabel("accuracy under PGD-50, %")
    best = max(rows.values(), key=lambda row: row.at[1])
    close = [row.at for row in rows.values() if row.at[0] > best.at[0] - 5 and row.at[1] > best.at[1] - 7]
    (left, right), (low, high) = ((min(side), max(side)) for side in zip(*close, strict=True))
    near.set(xlim=(left - 1, right + 1), ylim=(low - 1, high + 1), title="the upper right of it")
    shown = [(kind, "o") for kind in COLOURS if any(row.kind == kind for row in rows.values())]
    shown += [
        (name, mark) for name, mark in MARKERS.items() if any(row.marker == mark for row in rows.values())
    ]
    handles = [
        pyplot.Line2D([], [], linestyle="none", marker=mark, color=COLOURS.get(name, "0.6"), label=name)
        for name, mark in shown
    ]
    whole.legend(handles=handles, frameon=False, title="colour: credit, shape: learner")
    for row in rows.values():
        x, y = row.at
        if row.told.startswith("l1=") and left <= x <= right and low <= y <= high and row.kind != "batch":
            near.annotate(row.told, row.at, (6, 4), textcoords="offset points", fontsize=8, color=row.colour)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


class Row:
    """One point: mean accuracies in percent and their standard errors."""

    def __init__(self, label: str, runs: list[dict[str, Any]]) -> None:
        self.label = label
        self.kind, _, self.told = label.partition(" ")
        values = [percent(runs, attack) for attack in ("clean", "pgd-50")]
        self.at = (statistics.mean(values[0]), statistics.mean(values[1]))
        self.errors = [statistics.stdev(v) / len(v) ** 0.5 if len(v) > 1 else 0.0 for v in values]
        self.colour = COLOURS[self.kind]
        self.marker = MARKERS.get(self.told, "o")
