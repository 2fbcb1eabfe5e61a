"""One HTML file: every figure, table and manifest, with the plotting library inside."""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from lasat_ray.reporting.figure import Card, Curve, Dots, Figure, Heat, Mark, Panel
from lasat_ray.reporting.scores import column_name
from lasat_ray.reporting.study import Group, Run, Study
from lasat_ray.reporting.tables import Line, Table
from lasat_ray.reporting.to_plotly import to_plotly

ASSETS = files("lasat_ray.reporting") / "assets"


def render_page(study: Study, tables: list[Table], figures: list[Figure], facts: dict[str, Any]) -> str:
    """The page; ``facts``: title, when, and the command that made it. Loads nothing from anywhere."""
    panels: dict[str, Any] = {}
    body = [_bar(study), "<main>"]
    body += [_table(table) for table in tables]
    body += [_figure(figure, panels) for figure in figures]
    body += [_manifests(study), "</main>"]
    return "\n".join(
        [
            "<!doctype html><html lang='en' data-theme='light'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            "<link rel='icon' href='data:,'>",
            f"<title>{_text(facts['title'])}</title><style>{_asset('page.css')}</style></head><body>",
            _head(study, facts, [*tables, *figures]),
            *body,
            f"<script type='application/json' id='panels'>{_json(panels)}</script>",
            f"<script type='text/plain' id='plotly'>{packed_plotly()}</script>",
            f"<script>{_asset('page.js')}</script></body></html>",
        ]
    )


def packed_plotly() -> str:
    """plotly.js as base64 of gzip: 2 instead of 5 MB; every browser since 2023 unpacks it."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _head(study: Study, facts: dict[str, Any], parts: Sequence[Table | Figure]) -> str:
    runs = f"{len(study.runs)} run{'s' if len(study.runs) > 1 else ''}"
    groups = f"{len(study.groups)} group{'s' if len(study.groups) > 1 else ''}"
    late = [run for run in study.runs if run.summary is None]
    told = f", {len(late)} of them unfinished" if late else ""
    named = [(part.slug, part.title) for part in parts] + [("manifests", "Manifests")]
    links = " ".join(f"<a href='#{slug}'>{_text(title)}</a>" for slug, title in named)
    return (
        f"<header class='top'><h1>{_text(facts['title'])}</h1>"
        f"<p class='soft'>{runs} in {groups}{told}. {_text(facts['when'])}. "
        f"lasat-ray {_text(facts['version'])}. The buttons switch runs everywhere on the page.</p>"
        f"<nav class='menu' aria-label='on this page'>{links}</nav></header>"
    )


def _bar(study: Study) -> str:
    parts = []
    for group in study.groups:
        parts.append(
            f"<span class='group'>{_button(group.names, _dot(group.color) + _text(group.label))}"
            + (
                "".join(_button((run.name,), str(run.seed), "seed", f"seed {run.seed}") for run in group.runs)
                if len(group.runs) > 1
                else ""
            )
            + "</span>"
        )
    theme = "<button id='theme' aria-label='colour scheme'>Dark</button>"
    return f"<nav class='bar'><div>{''.join(parts)}{theme}</div></nav>"


def _button(runs: tuple[str, ...], inner: str, kind: str = "", title: str = "") -> str:
    return (
        f"<button class='{kind}' title='{_text(title)}' data-runs='{_text(' '.join(map(_id, runs)))}' "
        f"aria-pressed='true'>{inner}</button>"
    )


def _table(table: Table) -> str:
    checked = any(line.checks for line in table.lines)
    checks = ["L1", "L2", "L3"] if checked else []
    head = "".join(f"<th>{_text(name)}</th>" for name in ["", "", *checks, *map(column_name, table.columns)])
    rows = "".join(_line(table, line, checks) for line in table.lines)
    ranked = ", the best of its kind in bold; mean ± deviation over seeds" if table.ranked else ""
    notes = "".join(f"<p class='note'>{_text(note)}</p>" for note in table.notes)
    return (
        f"<section id='{table.slug}'><h2>{_text(table.title)}</h2>"
        f"<p class='about'>Accuracy in %{ranked}.</p>"
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"{notes}<p class='links'><a href='{table.slug}.csv'>CSV</a></p></section>"
    )


def _line(table: Table, line: Line, checks: list[str]) -> str:
    cells = [f"<td>{_dot(line.color) if line.color else ''}{_text(line.label)}</td>"]
    cells.append(f"<td><span class='tag'>{line.source}</span></td>")
    cells += [f"<td>{'✓' if (line.checks or {}).get(name) else ''}</td>" for name in checks]
    for column in table.columns:
        best = table.best(column, line.source)
        mark = " class='best'" if column in line.values and line.values[column] == best else ""
        cells.append(f"<td{mark}>{_text(line.shown.get(column, '–'))}</td>")
    return f"<tr class='{line.source} of-runs' {_owned(line.runs)}>{''.join(cells)}</tr>"


def _figure(figure: Figure, panels: dict[str, Any]) -> str:
    parts = "".join(_panel(figure, n, panel, panels) for n, panel in enumerate(figure.panels))
    grid = f"<div class='panels{' wide' if figure.wide else ''}'>{parts}</div>" if parts else ""
    cards = "".join(map(_card, figure.cards))
    cards = f"<div class='cards'>{cards}</div>" if cards else ""
    note = f"<p class='note'>{_text(figure.note)}</p>" if figure.note else ""
    return (
        f"<section id='{figure.slug}'><h2>{_text(figure.title)}</h2>"
        f"<p class='about'>{_text(figure.about)}</p>"
        f"{grid}{_keys(figure)}{cards}{note}<p class='links'><a href='{figure.slug}.png'>PNG</a> &middot; "
        f"<a href='{figure.slug}.csv'>CSV</a></p></section>"
    )


def _keys(figure: Figure) -> str:
    """The legend of a figure's lines, points and bars; heat maps say in their titles whose they are."""
    keys: dict[str, str] = {}
    for panel in figure.panels:
        for mark in panel.marks:
            if isinstance(mark, Heat) or (isinstance(mark, Curve | Dots) and mark.faint):
                continue
            kind = mark.dash if isinstance(mark, Curve) else "hollow" if _is_hollow(mark) else "full"
            sign = f"<i class='{kind}' style='color:{mark.color}'></i>"
            keys.setdefault(
                mark.name, f"<span class='of-runs' {_owned(mark.runs)}>{sign}{_text(mark.name)}</span>"
            )
    return f"<p class='keys'>{' '.join(keys.values())}</p>" if len(keys) > 1 else ""


def _is_hollow(mark: Mark) -> bool:
    return isinstance(mark, Dots) and mark.hollow


def _panel(figure: Figure, n: int, panel: Panel, panels: dict[str, Any]) -> str:
    name = f"{figure.slug}-{n}"
    panels[name] = _with_ids(to_plotly(panel))
    picture = f"<img alt='' src='{data_uri(panel.picture)}'>" if panel.picture is not None else ""
    title = f"<h3>{_text(panel.title)}</h3>" if panel.title else ""
    return (
        f"<div class='panel of-runs' {_owned(panel.runs)}><header>{picture}{title}</header>"
        f"<div class='plot' id='{name}' style='min-height:{panel.height}px'></div></div>"
    )


def _with_ids(spec: dict[str, Any]) -> dict[str, Any]:
    for trace in spec["data"]:
        trace["meta"]["runs"] = [_id(name) for name in trace["meta"]["runs"]]
    return spec


def _card(card: Card) -> str:
    pictures = "".join(
        f"<figure><img alt='{_text(name)}' src='{data_uri(x)}'>"
        f"<figcaption>{_text(name)}</figcaption></figure>"
        for name, x in card.pictures
    )
    lines = "".join(f"<p>{_text(line)}</p>" for line in card.lines)
    return (
        f"<div class='card of-runs' {_owned(card.runs)}><h3>{_dot(card.color)}{_text(card.title)}</h3>"
        f"<div class='pictures'>{pictures}</div>{lines}</div>"
    )


def _manifests(study: Study) -> str:
    parts = "".join(_manifest(group, run) for group in study.groups for run in group.runs)
    return (
        "<section id='manifests'><h2>Where the numbers come from</h2>"
        "<p class='about'>Command, commit, machine, "
        f"versions and every setting of each run.</p>{parts}</section>"
    )


def _manifest(group: Group, run: Run) -> str:
    content = {"status": run.status, "manifest": run.manifest, "config": run.config}
    if run.summary:
        content["summary"] = run.summary
    commit = str(run.manifest.get("commit") or "no commit")[:10]
    dirty = ", changed" if run.manifest.get("dirty") else ""
    return (
        f"<details class='of-runs' {_owned((run.name,))}>"
        f"<summary>{_dot(group.color)}<b>{_text(run.name)}</b> "
        f"<span class='soft'>{_text(run.status)}, commit {_text(commit)}{dirty}</span></summary>"
        f"<pre>{_text(json.dumps(content, indent=1))}</pre></details>"
    )


def data_uri(picture: np.ndarray) -> str:
    """[C,H,W] uint8 as a PNG inside the page; the browser enlarges it."""
    x = picture.transpose(1, 2, 0)
    packed = io.BytesIO()
    Image.fromarray(x[..., 0] if x.shape[2] == 1 else np.ascontiguousarray(x)).save(packed, "PNG")
    return "data:image/png;base64," + base64.b64encode(packed.getvalue()).decode()


def _id(name: str) -> str:
    """A run's name without what separates names in a list."""
    return name.replace(" ", "_")


def _owned(names: tuple[str, ...]) -> str:
    """No attribute's worth where a part belongs to no run: such parts always stay."""
    return f"data-runs='{_text(' '.join(map(_id, names)))}'" if names else "data-runs='*'"


def _dot(color: str) -> str:
    return f"<span class='dot' style='background:{color}'></span>"


def _text(words: str) -> str:
    return html.escape(str(words))


def _json(content: Any) -> str:
    """For a script element, which no ``<`` in it may end or begin anew. JSON has no nan."""
    return json.dumps(_finite(content)).replace("<", "\\u003c")


def _finite(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _finite(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_finite(value) for value in node]
    if isinstance(node, (float, np.floating)):
        return round(float(node), 7) if np.isfinite(node) else None
    return node.item() if isinstance(node, np.integer) else node


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
