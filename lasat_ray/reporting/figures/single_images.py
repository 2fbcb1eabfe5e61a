"""LAS-AT, Figure 5: the strategy of single images over training, beside the images."""

from __future__ import annotations

import numpy as np

from lasat_ray.config.units import field_name
from lasat_ray.reporting.figure import Curve, Figure, Mark, Panel
from lasat_ray.reporting.study import Group, Run, Study
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.tracked_images import load_tracked


def single_images(study: Study) -> Figure | None:
    """Of every group the first run with a probe, as long as it looked at the same images; None
    where nobody chose, or chance alone."""
    chosen: list[tuple[Group, Run]] = []
    labels: list[int] | None = None
    for group in study.groups:
        run = next((run for run in group.runs if run.of("probe")), None)
        chooses = group.config["strategy"] not in ("fixed", "random")
        if run is None or not chooses or not any(len(values) > 1 for values in group.grid().values()):
            continue
        if chosen and group.config["attack"]["norm"] != chosen[0][0].config["attack"]["norm"]:
            continue  # lengths of two norms share no axis
        labels = labels or run.of("probe")[0]["y"]
        if run.of("probe")[0]["y"] == labels:
            chosen.append((group, run))
    found = load_tracked(RunFolder(chosen[0][1].path)) if chosen else None
    if found is None or labels is None:
        return None
    images, class_names = found
    fields = [name for name, values in chosen[0][0].grid().items() if len(values) > 1]
    norm = chosen[0][0].config["attack"]["norm"]
    panels = [
        Panel(
            title=f"class {class_names[label]}",
            picture=images.x[n].numpy().astype(np.uint8),
            marks=[mark for group, run in chosen for mark in _marks(group, run, n, fields)],
            x_label="epoch",
            y_labels=[field_name(name, norm) for name in fields],
            height=80 + 110 * len(fields),
        )
        for n, label in enumerate(labels)
    ]
    return Figure(
        slug="figure-5-single-images",
        title="The strategy of single images (Figure 5)",
        about="The mean strategy that the policy holds for each of eight fixed training images, after every "
        "epoch; the band reaches from the 10 % to the 90 % quantile of its distribution.",
        panels=panels,
        note=f"One run a group, seed {chosen[0][1].seed}. Policies without a net are sampled 64 times.",
    )


def _marks(group: Group, run: Run, n: int, fields: list[str]) -> list[Mark]:
    marks: list[Mark] = []
    grid = group.grid()
    probes = run.of("probe")
    for axis, name in enumerate(fields):
        if name not in grid:
            continue
        values = np.array(grid[name])
        order = np.argsort(values)
        shares = np.array([probe["share"][name][n] for probe in probes])[:, order]
        below, ordered = shares.cumsum(1), values[order]
        last = len(ordered) - 1
        marks.append(
            Curve(
                name=group.label,
                runs=(run.name,),
                color=group.color,
                x=[probe["epoch"] for probe in probes],
                y=(shares @ ordered).tolist(),
                low=[float(ordered[min((row < 0.1).sum(), last)]) for row in below],
                high=[float(ordered[min((row < 0.9).sum(), last)]) for row in below],
                axis=axis,
            )
        )
    return marks
