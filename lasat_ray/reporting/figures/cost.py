"""Where the work of a round goes, counted in passes; and the time that training took."""

from __future__ import annotations

from lasat_ray.config.json_io import read_config
from lasat_ray.cost import PARTS, record_parts
from lasat_ray.errors import UserError
from lasat_ray.methods import METHODS
from lasat_ray.reporting.figure import Bars, Figure, Panel
from lasat_ray.reporting.study import Group, Run, Study, mean_and_std

COLORS = dict(zip(PARTS, ("#5c6f8a", "#93a9c4", "#a8763e", "#d3ad74", "#9d7fb5"), strict=True))


def cost(study: Study) -> Figure | None:
    """None where no round was played."""
    played = [(group, passes(group)) for group in study.groups if any(run.of("round") for run in group.runs)]
    if not played:
        return None
    runs = tuple(run.name for run in study.runs)
    known = [(group.label, parts) for group, parts in played if parts]
    labels = [label for label, _ in known]
    counted = [
        Bars(name=part, runs=runs, color=color, x=labels, y=[parts[part] for _, parts in known], stacked=True)
        for part, color in COLORS.items()
    ]
    timed = [
        Bars(name=group.label, runs=group.names, color=group.color, x=[group.label], y=[mean], err=[std])
        for group, _ in played
        for mean, std in [mean_and_std([seconds(run) / 60 for run in group.runs])]
    ]
    panels = [
        Panel(title="Time so far", marks=timed, x_label="", y_labels=["minutes of training"], height=320),
    ]
    if known:
        work = Panel(
            title="Work an image", marks=counted, x_label="", y_labels=["forward passes"], height=320
        )
        panels.insert(0, work)
    return Figure(
        slug="cost",
        title="Cost",
        about=f"Work, from bottom to top: {', '.join(PARTS)}. A step of an attack is two passes (forward, "
        "and back to the image), a training step three.",
        panels=panels,
        note="Passes follow from the recorded rounds and the settings; they are counted, not timed, and the "
        "strategy net's are passes of its own, perhaps smaller, net. Methods from outside are not counted. "
        "Minutes are measured, without validation, on whatever machine the manifests name.",
        wide=True,
    )


def passes(group: Group) -> dict[str, float]:
    """Forward passes for each image of a round by part, the mean over all recorded rounds; empty where
    the settings are of no use here: a method from outside, whose code is not run for this."""
    try:
        config = read_config(group.runs[0].path / "config.json", complete=True)
    except UserError:
        return {}
    if config.method not in METHODS:
        return {}
    found = [record_parts(config, record) for run in group.runs for record in run.of("round")]
    return {part: sum(parts[part] for parts in found) / len(found) for part in PARTS} if found else {}


def seconds(run: Run) -> float:
    """Of training, validation left out; 0 before the first epoch is over."""
    return next((float(r["train_seconds"]) for r in reversed(run.of("epoch"))), 0.0)
