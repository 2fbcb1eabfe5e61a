"""The picture of benchmarks/README.md: cost against k, batch size, workers and size of the data set."""

from __future__ import annotations

import hashlib
import io
import json
from statistics import median
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmarks.common import ROOT
from lasat_ray.reporting.figure import Bars, Curve, Figure, Panel
from lasat_ray.reporting.study import COLORS
from lasat_ray.reporting.to_png import to_png

PICTURE = ROOT / "benchmarks" / "speed.png"
Record = dict[str, Any]
GRAY = COLORS[-1]
TITLES = {"fixed": "PGD-10-AT", "learned": "LAS-AT, k = 4"}


def speed_figure(rounds: Record, batch: Record, workers: Record, dataset: Record) -> Figure:
    """Four panels from the records of round_cost.py and of run_cost.py's sections."""
    return Figure(
        slug="speed",
        title="What training costs",
        about="",
        panels=[k_panel(rounds), batch_panel(batch), workers_panel(workers), dataset_panel(dataset)],
        wide=True,
    )


def k_panel(record: Record) -> Panel:
    curves = []
    for (name, case), color in zip(record["cases"].items(), COLORS, strict=False):
        x, y = zip(*((int(k), ratio) for k, ratio in case["ratio_at_k"].items()), strict=True)
        curves.append(Curve(name=name.removesuffix(", image"), runs=(), color=color, x=x, y=y))
    level = Curve(name="1", runs=(), color=GRAY, x=x, y=[1.0] * len(x), dash="dot", faint=True)
    return panel("Processor time at update interval k", [*curves, level], "k", "beside the fixed attack")


def batch_panel(record: Record) -> Panel:
    bars = [
        Bars(
            name=TITLES[strategy],
            runs=(),
            color=color,
            x=list(found),
            y=[1000 * median(seconds) for seconds in found.values()],
        )
        for (strategy, found), color in zip(record["seconds_an_image"].items(), COLORS[5:], strict=False)
    ]
    return panel(f"{record['settings']['model']}, one thread", bars, "images a round", "ms an image")


def workers_panel(record: Record) -> Panel:
    names = {"0": "in process, 2 threads", "1": "1 worker, 2 threads", "2": "2 workers, 1 thread"}
    speed = {name: record["images"] / median(record["epoch_seconds"][n]) for n, name in names.items()}
    bars = [Bars(name="LAS-AT, k = 4", runs=(), color=COLORS[6], x=list(speed), y=list(speed.values()))]
    return panel(f"{record['settings']['model']}, Ray workers", bars, "", "images a second")


def dataset_panel(record: Record) -> Panel:
    ratios = {f"{int(count) // 1000}k": r for count, r in record["beside_the_least"].items()}
    bars = [Bars(name="LAS-AT, k = 4", runs=(), color=COLORS[6], x=list(ratios), y=list(ratios.values()))]
    return panel("Processor time by data set size", bars, "training images", "an image, beside 1k images")


def panel(title: str, marks: list[Any], x_label: str, y_label: str) -> Panel:
    return Panel(title=title, marks=marks, x_label=x_label, y_labels=[y_label])


def digest(figure: Figure) -> str:
    """Of all that is drawn; the PNG carries it, so that a test can tell an old picture."""
    return hashlib.sha256(json.dumps(figure.rows()).encode()).hexdigest()


def write(figure: Figure, *, check: bool) -> int:
    """Draw the picture where it is not this figure's; with ``check`` only look. Exit status as
    ``put_blocks``."""
    if PICTURE.is_file():
        with Image.open(PICTURE) as image:
            if image.info.get("drawn") == digest(figure):
                return 0
    if not check:
        told = PngInfo()
        told.add_text("drawn", digest(figure))
        Image.open(io.BytesIO(to_png(figure))).save(PICTURE, pnginfo=told, optimize=True)
    return int(check)
