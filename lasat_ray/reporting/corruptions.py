"""Runs under common corruptions: a line a kind, a column a severity, for each run that has such a table."""

from __future__ import annotations

from statistics import fmean

from lasat_ray.evaluation.corruptions import SEVERITY, accuracies
from lasat_ray.evaluation.show_corruptions import corruption_lines
from lasat_ray.reporting.study import Group, Run, Study
from lasat_ray.reporting.tables import Line, Table

COLUMNS = [*(f"severity {s}" for s in SEVERITY), "mean"]


def corruption_tables(study: Study) -> list[Table]:
    """One table a run; none for runs that were not evaluated so, or only in part."""
    runs = [(group, run) for group in study.groups for run in group.runs]
    return [_table(group, run) for group, run in runs if run.corruptions and run.corruptions.get("complete")]


def _table(group: Group, run: Run) -> Table:
    report = run.corruptions or {}
    rows = {kind: accuracies(entry) for kind, entry in report["kinds"].items()}
    lines = [_line(kind, found, group, run) for kind, found in rows.items()]
    counted = [rows[kind] for kind in report["mean"]["kinds"]]
    means = [fmean(found[s] for found in counted) for s in range(len(SEVERITY))]
    lines.append(_line(f"mean of {len(counted)} kinds", means, group, run))
    return Table(
        slug=f"corruptions-{run.name}",
        title=f"Common corruptions: {run.name}, {report['n']:,} images, {report['source']['where']}",
        columns=COLUMNS,
        lines=lines,
        notes=corruption_lines(report),
        ranked=False,
    )


def _line(label: str, found: list[float], group: Group, run: Run) -> Line:
    values = {name: 100 * a for name, a in zip(COLUMNS, (*found, fmean(found)), strict=True)}
    shown = {name: f"{value:.1f}" for name, value in values.items()}
    return Line(
        label=label, source="measured", runs=(run.name,), values=values, shown=shown, color=group.color
    )
