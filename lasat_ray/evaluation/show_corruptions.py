"""The table of common corruptions as a person sees it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from lasat_ray.evaluation.corruptions import COMMON, SEVERITY, accuracies


def severity_table(report: Mapping[str, Any]) -> Table:
    """A row a kind, a column a severity, accuracies in percent."""
    title = f"{report.get('architecture', 'net')}, {report['n']:,} images, {report['source']['where']}"
    table = Table(title=Text(title), box=SIMPLE, caption="accuracy in % by severity")
    for name in ("corruption", *map(str, SEVERITY), "mean"):
        table.add_column(name, justify="left" if name == "corruption" else "right", no_wrap=True)
    for kind, entry in report["kinds"].items():
        found = accuracies(entry)
        table.add_row(Text(kind), *(f"{100 * a:.1f}" for a in (*found, fmean(found))))
    return table


def corruption_lines(report: Mapping[str, Any]) -> list[str]:
    """What the table comes to: the mean, what it is over, and mCE where there is a baseline."""
    mean = report["mean"]
    groups = ", ".join(f"{name} {100 * value:.1f}" for name, value in mean["groups"].items())
    clean = report["clean"]
    lines = [f"clean: {100 * clean['accuracy']:.2f} % of {clean['n']:,} images"] if clean else []
    lines.append(
        f"common corruptions: {100 * mean['accuracy']:.2f} % right, {100 * mean['error']:.2f} % wrong, "
        f"mean of {len(mean['kinds'])} kinds and {len(SEVERITY)} severities"
        + (f" ({groups})" if groups else "")
    )
    if mean["missing"]:
        absent = ", ".join(mean["missing"])
        lines.append(f"{len(mean['missing'])} of the {len(COMMON)} common kinds are missing: {absent}")
    if left := [kind for kind in report["kinds"] if kind not in mean["kinds"]]:
        lines.append(f"not in the mean: {', '.join(left)}")
    if base := report.get("baseline"):
        lines.append(f"mCE: {100 * base['mce']:.1f} % of the errors of {base['model']}")
    if report["source"]["from"] == "made":
        lines.append("made with the strengths of ImageNet-C: not to be compared with figures on CIFAR-10-C")
    return lines
