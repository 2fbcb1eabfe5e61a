"""Where the work of a round goes, counted in passes; and the time that training took."""

from __future__ import annotations

from lasat_ray.config.json_io import read_config
from lasat_ray.errors import UserError
from lasat_ray.methods import METHODS
from lasat_ray.reporting.figure import Bars, Figure, Panel
from lasat_ray.reporting.study import Group, Run, Study, by_dataset, mean_and_std
from lasat_ray.update.cost import PARTS, record_parts

COLORS = dict(zip(PARTS, ("#5c6f8a", "#93a9c4", "#a8763e", "#d3ad74", "#9d7fb5"), strict=True))


def cost(study: Study) -> Figure | None:
    """None where no round was played."""
    played = [(group, passes(group)) for group in study.groups if any(run.of("round") for run in group.runs)]
    if not played:
        return None
    panels = []
    for of, groups in by_dataset([group for group, _ in played]):
        panels += _panels(of, [(group, parts) for group, parts in played if group in groups])
    return Figure(
        slug="cost",
        title="Cost",
        about=f"Work, from left to right: {', '.join(PARTS)}. A step of an attack is two passes (forward, "
        "and back to the image), a training step three.",
        panels=panels,
        note="Passes follow from the recorded rounds and the settings; they are counted, not timed, and the "
        "strategy net's are passes of its own, perhaps smaller, net. Methods from outside are not counted. "
        "Minutes are measured, without validation, on whatever machine the manifests name.",
        wide=True,
    )


def _panels(of: str, played: list[tuple[Group, dict[str, float]]]) -> list[Panel]:
    """Work and minutes of groups that trained on one data set."""
    counted = [
        Bars(
            name=part,
            runs=tuple(name for group, parts in played if parts for name in group.names),
            color=color,
            x=[group.label for group, parts in played if parts],
            y=[parts[part] for _, parts in played if parts],
            stacked=True,
        )
        for part, color in COLORS.items()
    ]
    timed = [
        Bars(name=group.label, runs=group.names, color=group.color, x=[group.label], y=[mean], err=[std])
        for group, _ in played
        for mean, std in [mean_and_std([seconds(run) / 60 for run in group.runs])]
    ]
    panels = [(f"Time so far{of}", timed, "minutes of training")]
    if any(parts for _, parts in played):
        panels.insert(0, (f"Work an image{of}", counted, "forward passes"))
    return [
        Panel(
            title=title,
            marks=marks,
            x_label="",
            y_labels=[label],
            height=90 + 56 * len(played),
            sideways=True,
        )
        for title, marks, label in panels
    ]


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
