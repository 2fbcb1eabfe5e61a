"""LAS-AT, Theorem 1: the running mean of the squared gradient norm against the bound's slope."""

from __future__ import annotations

import math

import numpy as np

from lasat_ray.reporting.figure import Curve, Figure, Panel
from lasat_ray.reporting.figures.pareto import GRAY
from lasat_ray.reporting.study import Run, Study, over_seeds

POINTS = 120


def convergence(study: Study) -> Figure | None:
    """None where no gradient was recorded."""
    marks, told, highest = [], [], None
    for group in study.groups:
        series = [running_mean(run) for run in group.runs]
        x, y, low, high = over_seeds([_at_even_logs(pairs) for pairs in series if pairs])
        if len(x) < 3:
            continue
        band = {"low": [max(v, 1e-12) for v in low], "high": high} if len(group.runs) > 1 else {}
        marks.append(
            Curve(name=group.label, runs=group.names, color=group.color, x=x, y=y, **band)  # type: ignore[arg-type]
        )
        highest = (x, y) if highest is None or y[-1] > highest[1][-1] else highest
        told.append(f"{group.label} {slope(x, y):+.2f}")
    if highest is None:
        return None
    x, y = highest
    start = len(x) // 2
    line = [1.15 * y[-1] * math.sqrt(x[-1] / t) for t in x[start:]]
    runs = tuple(run.name for run in study.runs)
    marks.append(Curve(name="slope of 1/sqrt(T)", runs=runs, color=GRAY, x=x[start:], y=line, dash="dash"))
    labels = ["rounds T", "mean of squared gradient norm"]
    panel = Panel(title="", marks=marks, x_label=labels[0], y_labels=labels[1:], log=True, height=340)
    return Figure(
        slug="theorem-1",
        title="Convergence (Theorem 1)",
        about="The theorem bounds the running mean of the squared gradient norm by a multiple of 1/sqrt(T) "
        "plus a constant: a slope of -0.5 or steeper on these axes, until the constant is reached. "
        f"Slopes over the last half of the rounds: {'; '.join(told)}.",
        panels=[panel],
        note="What is recorded is the norm of the minibatch gradient of the training loss at x_adv (L1 as it "
        "is trained, with label smoothing, train mode, before clipping, without weight decay); the theorem "
        "speaks of the full gradient of L0, so gradient noise stays in the mean.",
        wide=True,
    )


def running_mean(run: Run) -> list[tuple[int, float]]:
    """(T, mean of grad_norm^2 over the first T rounds) for every T."""
    rounds = [r for r in run.of("round") if math.isfinite(r.get("grad_norm", math.nan))]
    squares = np.array([r["grad_norm"] for r in rounds]) ** 2
    means = squares.cumsum() / np.arange(1, len(squares) + 1)
    return list(zip(range(1, len(squares) + 1), means.tolist(), strict=True))


def slope(x: list[float], y: list[float]) -> float:
    """Of log y against log x by least squares, where x is at least half of its largest value."""
    late = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True) if a >= x[-1] / 2 and b > 0]
    if len(late) < 2:
        return math.nan
    logs = np.array(late)
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def _at_even_logs(pairs: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most ``POINTS`` of them, evenly spaced on a logarithmic axis."""
    wanted = np.unique(np.geomspace(1, len(pairs), POINTS).round().astype(int))
    return [pairs[n - 1] for n in wanted]
