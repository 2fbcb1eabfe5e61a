"""What a run buys with its compute: robust accuracy on validation images against counted passes."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from lasat_ray.config.json_io import config_from_json
from lasat_ray.methods import METHODS
from lasat_ray.reporting.figure import Curve, Figure, Mark, Panel
from lasat_ray.reporting.study import Group, Run, Study, by_dataset, over_seeds
from lasat_ray.update.cost import counted_passes

_POINTS = 40


def compute(study: Study) -> Figure | None:
    """None where no run was validated twice, or no passes can be counted."""
    panels = []
    for title, what in (("Robust accuracy", "robust"), ("Clean accuracy", "clean")):
        for of, groups in by_dataset(study.groups):
            marks = [mark for group in groups for mark in _marks(group, what)]
            if marks:
                axes = {"x_label": "passes per image", "y_labels": ["accuracy, %"]}
                panels.append(Panel(title=title + of, marks=marks, **axes))  # type: ignore[arg-type]
    if not panels:
        return None
    return Figure(
        slug="accuracy-for-compute",
        title="Accuracy for your compute",
        about="Accuracy on the validation images against what training had cost by then: forward passes of "
        "the target net per training image, counted. Higher and further to the left is better; compare "
        "runs at equal passes, not at equal epochs. Bands are one standard deviation over seeds.",
        panels=panels,
        note="A run's schedule belongs to its whole length: a point before the end is not what a run of that "
        "budget would have reached. Passes of the strategy net are weighed by its arithmetic.",
        wide=True,
    )


def _marks(group: Group, what: str) -> list[Mark]:
    if group.config["method"] not in METHODS:
        return []
    series = [pairs for run in group.runs if len(pairs := passes_and_accuracy(run, what)) > 1]
    if not series:
        return []
    first, last = max(pairs[0][0] for pairs in series), min(pairs[-1][0] for pairs in series)
    if first >= last:
        return []
    # Seeds are validated at passes of their own: they are read off at the same ones.
    shared = np.linspace(first, last, _POINTS).tolist() if len(series) > 1 else [x for x, _ in series[0]]
    read = []
    for pairs in series:
        spent, accuracy = np.array(pairs).T
        read.append(list(zip(shared, np.interp(shared, spent, accuracy).tolist(), strict=True)))
    x, y, low, high = over_seeds(read)
    band = {"low": low, "high": high} if len(series) > 1 else {}
    return [Curve(name=group.label, runs=group.names, color=group.color, x=x, y=y, **band)]  # type: ignore[arg-type]


def passes_and_accuracy(run: Run, what: str) -> list[tuple[float, float]]:
    """(passes per training image so far, accuracy in %) of every validated epoch."""
    config, rounds = config_from_json(run.config), run.of("round")
    if not rounds:
        return []
    rounds_per_epoch = round((rounds[-1]["round"] + 1) / rounds[-1]["epoch"])
    images = config.batch_size * rounds_per_epoch
    if run.summary and run.summary.get("passes_per_image"):
        images = run.summary["passes"] / run.summary["passes_per_image"]
    weight = next((record["strategy_pass"] for record in run.of("epoch") if "strategy_pass" in record), 1.0)
    counted = (counted_passes(config, [record]) for record in rounds)
    spent = list(accumulate(target + weight * strategy for target, strategy in counted))
    pairs = []
    for record in run.of("epoch"):
        key = next((k for k in record if k.startswith(f"val_{what}")), None)
        if key and 0 < record["round"] <= len(spent):
            pairs.append((spent[record["round"] - 1] / images, 100 * record[key]))
    return pairs
