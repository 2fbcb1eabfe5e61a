"""A panel as plotly.js draws it: data and layout, plain JSON. Colours of text and grid are the page's."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from lasat_ray.reporting.figure import Bars, Curve, Dots, Heat, Mark, Panel

GAP = 0.06  # between stacked axes, as a share of the height


def to_plotly(panel: Panel) -> dict[str, Any]:
    """``{"data": [...], "layout": {...}}``; every trace says in ``meta`` whose runs it shows."""
    traces = [trace for mark in panel.marks for trace in _traces(mark)]
    if panel.sideways:
        traces = [_sideways(trace) for trace in traces]
    return {"data": traces, "layout": _layout(panel)}


def _traces(mark: Mark) -> list[dict[str, Any]]:
    if isinstance(mark, Curve):
        return _curve(mark)
    if isinstance(mark, Dots):
        return [_dots(mark)]
    if isinstance(mark, Bars):
        return [_bars(mark)]
    return [_heat(mark)]


def _curve(mark: Curve) -> list[dict[str, Any]]:
    axes = {"xaxis": "x", "yaxis": f"y{mark.axis + 1 if mark.axis else ''}"}
    meta = {"runs": list(mark.runs)}
    traces: list[dict[str, Any]] = []
    if len(mark.low):
        around = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "meta": meta, "line": {"width": 0}}
        x = [*mark.x, *reversed(mark.x)]
        y = [*mark.high, *reversed(mark.low)]
        traces.append({**around, "x": x, "y": y, "fill": "toself", "fillcolor": _faded(mark.color), **axes})
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers" if len(mark.x) == 1 else "lines",
            "name": mark.name,
            "x": list(mark.x),
            "y": list(mark.y),
            "opacity": 0.35 if mark.faint else 1,
            "line": {"color": mark.color, "width": 1 if mark.faint else 2.4, "dash": mark.dash},
            "hovertemplate": "%{x:.4~g}: %{y:.4~g}<extra>" + mark.name + "</extra>",
            "meta": meta,
            **axes,
        }
    )
    return traces


def _dots(mark: Dots) -> dict[str, Any]:
    errors = {"error_x": mark.x_err, "error_y": mark.y_err}
    bars = {
        name: {"type": "data", "array": list(sizes), "thickness": 1.4, "color": mark.color}
        for name, sizes in errors.items()
        if len(sizes)
    }
    style = {"color": mark.color, "size": mark.size, "symbol": "diamond-open" if mark.hollow else "circle"}
    return {
        "type": "scatter",
        "mode": "markers+text" if any(mark.text) else "markers",
        "name": mark.name,
        "x": list(mark.x),
        "y": list(mark.y),
        "text": list(mark.text),
        "textposition": "top center",
        "cliponaxis": False,
        "opacity": 0.5 if mark.faint else 1,
        "marker": style,
        "hovertemplate": "%{x:.1f}, %{y:.1f}<extra>" + mark.name + "</extra>",
        "meta": {"runs": list(mark.runs)},
        **bars,
    }


def _bars(mark: Bars) -> dict[str, Any]:
    bar = {"type": "data", "array": list(mark.err), "color": "#8b95a1", "thickness": 1.4}
    errors = {"error_y": bar} if any(mark.err) else {}
    return {
        "type": "bar",
        "name": mark.name,
        "x": list(mark.x),
        "y": list(mark.y),
        "marker": {"color": mark.color},
        "hovertemplate": "%{x}: %{y:.4~g}<extra>" + mark.name + "</extra>",
        "meta": {"runs": list(mark.runs)},
        **errors,
    }


def _sideways(trace: dict[str, Any]) -> dict[str, Any]:
    """The same bars, lying; names of categories break between words."""
    told = {"x": trace["y"], "y": ["<br>".join(textwrap.wrap(name, 24)) for name in trace["x"]]}
    turned = {"error_x": trace.pop("error_y")} if "error_y" in trace else {}
    hover = "%{y}: %{x:.4~g}<extra>" + trace["name"] + "</extra>"
    return {**trace, **told, **turned, "orientation": "h", "hovertemplate": hover}


def _heat(mark: Heat) -> dict[str, Any]:
    text = {"texttemplate": "%{z:.0f}", "textfont": {"size": 10}} if mark.text else {}
    return {
        "type": "heatmap",
        "name": mark.name,
        "x": list(mark.x),
        "y": list(mark.y),
        "z": [list(row) for row in mark.z],
        "zmin": 0,
        "zmax": mark.top,
        "xgap": 1,
        "ygap": 1,
        "showscale": False,
        "hovertemplate": "%{x}, %{y}: %{z:.1f} " + mark.unit + "<extra></extra>",
        "meta": {"runs": list(mark.runs), "tint": mark.color},
        **text,
    }


def _layout(panel: Panel) -> dict[str, Any]:
    heat = any(isinstance(mark, Heat) for mark in panel.marks)
    bars = [mark for mark in panel.marks if isinstance(mark, Bars)]
    count = len(panel.y_labels)
    x_axis: dict[str, Any] = {"title": {"text": panel.x_label, "standoff": 8}, "automargin": True}
    x_axis |= {"anchor": f"y{count if count > 1 else ''}", "zeroline": False, "showgrid": not heat}
    if panel.sideways:
        x_axis |= {"title": {"text": panel.y_labels[0], "standoff": 8}, "rangemode": "tozero"}
    elif bars or heat:
        x_axis["type"] = "category"
    if panel.log:
        x_axis |= {"type": "log", "dtick": 1}
    if worded := [x for mark in panel.marks if isinstance(mark, Dots) for x in mark.x]:
        # Room for the words beside the outermost points, also on a phone.
        room = 0.22 * (max(worded) - min(worded)) or 1.0
        x_axis["range"] = [min(worded) - room, max(worded) + room]
    layout: dict[str, Any] = {
        "height": panel.height,
        "margin": {"l": 8, "r": 14, "t": 10, "b": 8},
        "showlegend": False,
        "barmode": "stack" if any(bar.stacked for bar in bars) else "group",
        "dragmode": False,
        "xaxis": x_axis,
    }
    for n, label in enumerate(panel.y_labels):
        layout[f"yaxis{n + 1 if n else ''}"] = _y_axis(panel, label, _part(n, count), heat)
    return layout


def _y_axis(panel: Panel, label: str, domain: Sequence[float], heat: bool) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": label, "standoff": 6}, "automargin": True}
    axis |= {"domain": list(domain), "zeroline": False, "exponentformat": "power", "showgrid": not heat}
    if heat:
        axis["type"] = "category"
    if panel.sideways:
        return {"type": "category", "automargin": True, "autorange": "reversed", "domain": list(domain)}
    if panel.upside_down:
        axis["autorange"] = "reversed"
    if panel.log:
        axis |= {"type": "log", "dtick": 1}
    if any(isinstance(mark, Bars) for mark in panel.marks):
        axis["rangemode"] = "tozero"
    if len(panel.y_labels) > 1:
        axis["nticks"] = 4
        axis["title"]["font"] = {"size": 10}  # names of short axes must not run into each other
    return axis


def _part(n: int, count: int) -> tuple[float, float]:
    """The share of the height that axis n of ``count`` takes, the first on top."""
    size = (1 - GAP * (count - 1)) / count
    top = 1 - n * (size + GAP)
    return max(top - size, 0.0), top


def _faded(color: str) -> str:
    red, green, blue = (int(color[n : n + 2], 16) for n in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"
