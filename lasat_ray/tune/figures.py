"""The pictures of the three sweeps, drawn from their records alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lasat_ray.reporting.scores import pareto_front
from lasat_ray.tune.results import threat

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#999999"  # distinct to colour-blind eyes too


def draw_k(record: dict[str, Any]) -> bytes:
    """Accuracies per k beside its cost relative to the fixed attack."""
    rows = [row for row in record["rows"] if row["seeds"]]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [row["row"] for row in rows]
    robust = _robust_key(rows)
    for key, colour, label in (("clean_acc", BLUE, "clean"), (robust, ORANGE, _spelled(robust))):
        _points(left, names, [row.get(key) for row in rows], colour, label)
    left.set_ylabel("test accuracy, %")
    left.legend(frameon=False)
    key = "relative_passes" if record["base"] else "passes"
    _bars(right, names, [row[key] for row in rows], GREY)
    if record["base"]:
        seconds = [row["relative_seconds"] for row in rows]
        _points(right, names, seconds, ORANGE, "seconds", scale=1.0)
        right.axhline(1.0, color="black", linewidth=0.6)
        right.set_ylabel(f"cost / {record['base']} (bars: forward passes)")
        right.legend(frameon=False)
    return _png(figure, record)


def draw_weights(record: dict[str, Any]) -> bytes:
    """Every pair on validation, clean against robust, with the Pareto front of the means."""
    rows = [row for row in record["rows"] if row["val_clean"]]
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    points = [(100 * row["val_clean"][0], 100 * row["val_robust"][0]) for row in rows]
    spread = [(100 * (row["val_clean"][1] or 0), 100 * (row["val_robust"][1] or 0)) for row in rows]
    for row, point, (wide, high) in zip(rows, points, spread, strict=True):
        axes.errorbar(*point, xerr=wide, yerr=high, fmt="o", color=BLUE, ecolor="#cccccc", markersize=4)
        axes.annotate(row["row"], point, xytext=(4, 4), textcoords="offset points", fontsize=6)
    front = [points[n] for n in pareto_front(points)]
    across, up = [x for x, _ in front], [y for _, y in front]
    axes.step(across, up, where="pre", color=ORANGE)
    axes.plot(across, up, "o", color=ORANGE, ms=10, mfc="none", label="Pareto front of the means")
    axes.set_xlabel("validation, clean accuracy, %")
    axes.set_ylabel("validation, accuracy under PGD, %")
    axes.legend(frameon=False)
    return _png(figure, record)


def draw_search(record: dict[str, Any]) -> bytes:
    """Robust and clean test accuracy of every contender, as bars."""
    rows = [row for row in record["rows"] if row["seeds"]]
    names, robust = [row["row"] for row in rows], _robust_key(rows)
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), (robust, "clean_acc"), strict=True):
        colours = [ORANGE if name == "learned" else BLUE for name in names]
        values = [(100 * row[key][0], 100 * (row[key][1] or 0.0)) for row in rows]
        _bars(axes, names, values, colours)
        low = min((mean - deviation for mean, deviation in values), default=0.0)
        high = max((mean + deviation for mean, deviation in values), default=0.0)
        axes.set_ylim(max(0.0, low - 5), min(100.5, high + 5))
        axes.set_ylabel(f"test accuracy, {_spelled(key)}, %")
    return _png(figure, record)


def _bars(axes: Axes, names: list[str], values: list[Any], colour: Any) -> None:
    means = [value[0] if value else 0.0 for value in values]
    spread = [(value[1] or 0.0) if value else 0.0 for value in values]
    axes.bar(
        [name.replace(" ", "\n") for name in names], means, yerr=spread, color=colour, capsize=3, width=0.6
    )
    axes.tick_params(axis="x", labelsize=8)


def _points(
    axes: Axes, names: list[str], values: list[Any], colour: str, label: str, scale: float = 100.0
) -> None:
    means = [scale * value[0] if value else float("nan") for value in values]
    spread = [scale * (value[1] or 0.0) if value else 0.0 for value in values]
    axes.errorbar(names, means, yerr=spread, fmt="o", color=colour, label=label, capsize=3)
    axes.tick_params(axis="x", labelsize=8)


def _robust_key(rows: Sequence[dict[str, Any]]) -> str:
    """The first attack of the final evaluation."""
    keys = [key for row in rows for key in row if key.startswith("robust_acc_")]
    return keys[0] if keys else "clean_acc"


def _spelled(key: str) -> str:
    return key.removesuffix("_acc").replace("robust_acc_pgd", "PGD-")


def _png(figure: Figure, record: dict[str, Any]) -> bytes:
    """The picture with what it rests on below it."""
    seeds = max((len(row["seeds"]) for row in record["rows"]), default=0)
    dataset = record["definition"]["config"]["dataset"]
    told = f"{dataset}, {threat(record)}, {seeds} seed(s), mean and deviation"
    figure.suptitle(f"{record['title']}: {told}", fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
    return content.getvalue()
