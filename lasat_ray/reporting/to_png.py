"""The same marks by matplotlib, for papers and slides: one PNG a figure, on white."""

from __future__ import annotations

import io
import math
import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from lasat_ray.reporting.figure import Bars, Curve, Dots, Figure, Heat, Panel

DASHES = {"solid": "-", "dash": "--", "dot": ":"}
STYLE: Any = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
STYLE |= {"grid.alpha": 0.3, "axes.titlesize": 9, "legend.frameon": False}


def to_png(figure: Figure) -> bytes:
    """The whole figure; panels or cards in a grid."""
    with mpl.rc_context(STYLE):
        canvas = _cards(figure) if figure.cards else _panels(figure)
        canvas.suptitle(figure.title, fontsize=11, fontweight="bold")
        FigureCanvasAgg(canvas)
        packed = io.BytesIO()
        canvas.savefig(packed, format="png", dpi=150)
        return packed.getvalue()


def _panels(figure: Figure) -> Canvas:
    columns = min(len(figure.panels), 2 if figure.wide else 3)
    rows = math.ceil(len(figure.panels) / columns)
    tall = max(panel.height for panel in figure.panels) / 100
    canvas = Canvas(figsize=(4.2 * columns, tall * rows + 0.8), layout="constrained")
    legend: dict[str, Any] = {}
    grid = canvas.add_gridspec(rows, columns)
    for n, panel in enumerate(figure.panels):
        parts = (
            grid[n // columns, n % columns]
            .subgridspec(len(panel.y_labels), 1, hspace=0.08)
            .subplots(sharex=True, squeeze=False)
        )
        _panel(panel, [axes for (axes,) in parts], legend)
    if len(legend) > 1:
        longest = max(map(len, legend)) + 6  # letters, of which 68 fit beside each other under a panel
        beside = max(1, min(3, len(legend), 68 * columns // longest))
        canvas.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=beside)
    return canvas


def _panel(panel: Panel, axes: list[Any], legend: dict[str, Any]) -> None:
    axes[0].set_title(panel.title)
    axes[-1].set_xlabel(panel.x_label)
    for part, label in zip(axes, panel.y_labels, strict=True):
        part.set_ylabel(label)
        if panel.log:
            part.set(xscale="log", yscale="log")
    bars = [mark for mark in panel.marks if isinstance(mark, Bars)]
    for mark in panel.marks:
        if isinstance(mark, Curve):
            handle = _curve(axes[mark.axis], mark)
            if not mark.faint:
                legend.setdefault(mark.name, handle)
        elif isinstance(mark, Dots):
            legend.setdefault(mark.name, _dots(axes[0], mark))
        elif isinstance(mark, Heat):
            _heat(axes[0], mark, panel)
    drawn = _lying(axes[0], bars) if panel.sideways else _bars(axes[0], bars)
    if panel.sideways:
        axes[0].set(xlabel=panel.y_labels[0], ylabel="")
    for name, handle in zip([b.name for b in bars], drawn, strict=True):
        legend.setdefault(name, handle)
    if panel.picture is not None:
        inset = axes[0].inset_axes((0.82, 1.02, 0.18, 0.3))
        _picture(inset, panel.picture)


def _curve(axes: Any, mark: Curve) -> Any:
    if len(mark.low):
        axes.fill_between(mark.x, mark.low, mark.high, color=mark.color, alpha=0.15, lw=0)
    style = {"alpha": 0.35, "lw": 0.8} if mark.faint else {"lw": 1.6}
    marker = "o" if len(mark.x) == 1 else None
    return axes.plot(mark.x, mark.y, color=mark.color, ls=DASHES[mark.dash], marker=marker, **style)[0]


def _dots(axes: Any, mark: Dots) -> Any:
    errors = {"xerr": list(mark.x_err) or None, "yerr": list(mark.y_err) or None}
    face = "none" if mark.hollow else mark.color
    handle = axes.errorbar(
        mark.x,
        mark.y,
        fmt="D" if mark.hollow else "o",
        color=mark.color,
        mfc=face,
        ms=mark.size / 2,
        **errors,
    )
    for x, y, text in zip(mark.x, mark.y, mark.text, strict=False):
        axes.annotate(text, (x, y), xytext=(0, 7), textcoords="offset points", ha="center")
    return handle


def _bars(axes: Any, bars: list[Bars]) -> list[Any]:
    names = list(dict.fromkeys(name for bar in bars for name in bar.x))
    beside = [bar for bar in bars if not bar.stacked]
    width = 0.8 / max(len(beside), 1) if len(names) > 1 and len({bar.x[0] for bar in beside}) == 1 else 0.6
    handles, floor = [], np.zeros(len(names))
    for n, bar in enumerate(bars):
        place = np.array([names.index(name) for name in bar.x], dtype=float)
        if bar.stacked:
            handles.append(axes.bar(place, bar.y, 0.6, bottom=floor[: len(bar.y)], color=bar.color))
            floor[: len(bar.y)] += np.array(bar.y)
        else:
            shift = (n - (len(beside) - 1) / 2) * width if width < 0.6 else 0.0
            yerr = list(bar.err) or None
            handles.append(axes.bar(place + shift, bar.y, width, color=bar.color, yerr=yerr))
    if bars:
        axes.set_xticks(range(len(names)), names, rotation=30 if max(map(len, names)) > 8 else 0, ha="right")
        axes.grid(axis="x", visible=False)
    return handles


def _lying(axes: Any, bars: list[Bars]) -> list[Any]:
    """Bars that lie, the first category on top; stacked, or one a category."""
    names = list(dict.fromkeys(name for bar in bars for name in bar.x))
    handles, left = [], np.zeros(len(names))
    for bar in bars:
        place = np.array([names.index(name) for name in bar.x])
        begin = left[place] if bar.stacked else 0.0
        handles.append(axes.barh(place, bar.y, 0.6, left=begin, color=bar.color, xerr=list(bar.err) or None))
        left[place] += np.array(bar.y)
    axes.set_yticks(range(len(names)), ["\n".join(textwrap.wrap(name, 24)) for name in names])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return handles


def _heat(axes: Any, mark: Heat, panel: Panel) -> None:
    z = np.array(mark.z)
    tint = LinearSegmentedColormap.from_list("tint", ["white", mark.color])
    origin = "upper" if panel.upside_down else "lower"
    axes.imshow(
        z, cmap=tint, vmin=0, vmax=mark.top, aspect="equal" if panel.square else "auto", origin=origin
    )
    axes.set_yticks(range(len(mark.y)), mark.y)
    axes.grid(visible=False)
    if mark.text:
        axes.set_xticks(range(len(mark.x)), mark.x, rotation=90 if max(map(len, map(str, mark.x))) > 2 else 0)
        for (j, i), value in np.ndenumerate(z):
            color = "white" if value > 0.6 * mark.top else "black"
            axes.text(i, j, f"{value:.0f}", ha="center", va="center", fontsize=6, color=color)
    else:
        places = MaxNLocator(8, integer=True).tick_values(0, len(mark.x) - 1)
        kept = [int(place) for place in places if 0 <= place < len(mark.x)]
        axes.set_xticks(kept, [mark.x[n] for n in kept])


def _cards(figure: Figure) -> Canvas:
    wide = max(len(card.pictures) for card in figure.cards)
    columns = 2
    rows = math.ceil(len(figure.cards) / columns)
    canvas = Canvas(figsize=(4.6 * columns, 1.75 * rows + 0.5), layout="constrained")
    for card, part in zip(figure.cards, canvas.subfigures(rows, columns, squeeze=False).flat, strict=False):
        part.suptitle(f"{card.title}\n{'; '.join(card.lines)}", fontsize=6, color=card.color)
        for axes, (name, picture) in zip(part.subplots(1, wide), card.pictures, strict=False):
            _picture(axes, picture)
            axes.set_title(name, fontsize=6)
    return canvas


def _picture(axes: Any, picture: np.ndarray) -> None:
    """[C,H,W] uint8; one channel is gray."""
    image = picture.transpose(1, 2, 0)
    axes.imshow(image[..., 0] if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
