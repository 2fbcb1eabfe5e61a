"""Catastrophic overfitting (Wong et al. 2020): FGSM against PGD, and how long the attacks were."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lasat_ray.reporting.figure import Curve, Figure, Panel
from lasat_ray.reporting.study import Group, Run, Study, over_seeds
from lasat_ray.runs.records import Record

Pairs = list[tuple[float, float]]


def catastrophic(study: Study) -> Figure | None:
    """None where no run measured FGSM accuracy (runs made before it was)."""
    curves = [curve for group in study.groups for curve in _accuracies(group)]
    if not curves:
        return None
    panels = [
        Panel(title="Accuracy on training images", marks=curves, x_label="epoch", y_labels=["accuracy, %"])
    ]
    steps = [curve for group in study.groups for curve in _curve(group, group.label, mean_steps(group))]
    if steps:
        panels.append(
            Panel(title="Attacks trained on", marks=steps, x_label="epoch", y_labels=["mean number of steps"])
        )
    return Figure(
        slug="catastrophic-overfitting",
        title="One step against several (catastrophic overfitting)",
        about="Dashed: one step of FGSM. Solid: PGD. Where solid falls to zero while dashed stays, the net "
        "has learned to mislead a single step; longer training attacks bring it back.",
        panels=panels,
        note="Watched training images, at most 256, without augmentation; FGSM is one step from the image, "
        "as long as the budget of evaluation. Mean over seeds.",
        wide=True,
    )


def mean_steps(group: Group) -> Callable[[Run], Pairs]:
    """What reads the mean number of steps of every epoch from a run of the group."""
    values = group.grid().get("num_steps") or (group.config["attack"]["num_steps"],)

    def read(run: Run) -> Pairs:
        found: Pairs = []
        for record in run.of("epoch"):
            counts = record.get("options", {}).get("num_steps", ())
            if sum(counts) and len(counts) == len(values):
                mean = sum(v * c for v, c in zip(values, counts, strict=True)) / sum(counts)
                found.append((record["epoch"], mean))
        return found

    return read


def _accuracies(group: Group) -> Iterable[Curve]:
    """The two curves of a group, where it has them."""
    if not any("train_fgsm_acc" in record for run in group.runs for record in run.of("epoch")):
        return
    for told, begin, dash in (("PGD", "train_robust_acc", "solid"), ("FGSM", "train_fgsm_acc", "dash")):
        yield from _curve(group, f"{group.label}, {told}", _reader(begin), dash)


def _reader(begin: str) -> Callable[[Run], Pairs]:
    def value(record: Record) -> float | None:
        return next((100 * record[name] for name in record if name.startswith(begin)), None)

    return lambda run: [(r["epoch"], v) for r in run.of("epoch") if (v := value(r)) is not None]


def _curve(group: Group, name: str, read: Callable[[Run], Pairs], dash: str = "solid") -> Iterable[Curve]:
    x, y, *_ = over_seeds([read(run) for run in group.runs])
    if x:
        yield Curve(name=name, runs=group.names, color=group.color, x=x, y=y, dash=dash)  # type: ignore[arg-type]
