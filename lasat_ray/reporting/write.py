"""A report on the disk: the page, and beside it the PNG and CSV of every figure."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lasat_ray import __version__
from lasat_ray.errors import UserError, described, not_made
from lasat_ray.reporting.corruptions import corruption_tables
from lasat_ray.reporting.figure import Figure
from lasat_ray.reporting.figures import draw_all
from lasat_ray.reporting.page import render_page
from lasat_ray.reporting.scores import column_name
from lasat_ray.reporting.study import Study
from lasat_ray.reporting.tables import Table, all_tables
from lasat_ray.runs.checkpoint import write_atomically

PAGE = "report.html"


def make_folder(out: Path) -> None:
    """UsageError where the report cannot lie there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_made(out, error) from error


def draw(study: Study) -> tuple[list[Figure], list[Table]]:
    """Every figure and table; UserError naming the run whose records cannot be drawn."""
    try:
        return draw_all(study), [*all_tables(study), *corruption_tables(study)]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if len(study.runs) > 1:
            for group in study.groups:
                for run in group.runs:
                    draw(Study([dataclasses.replace(group, runs=[run])]))
        told = described(error)
        names = ", ".join(str(run.path) for run in study.runs)
        raise UserError(
            f"{names}: cannot be drawn, its records are not ours ({told}); leave it out"
        ) from error


def write_report(study: Study, out: Path, *, title: str, png: bool, warn: Callable[[str], None]) -> None:
    """The page, and beside it the PNG and CSV of every figure and the CSV of every table."""
    figures, tables = draw(study)
    for figure in figures:
        write_atomically(out / f"{figure.slug}.csv", csv_of(figure.rows()))
    for table in tables:
        write_atomically(out / f"{table.slug}.csv", csv_of(table_rows(table)))
    if png:
        from lasat_ray.reporting.to_png import to_png  # late: matplotlib takes a second

        for figure in figures:
            write_atomically(out / f"{figure.slug}.png", to_png(figure))
    if not figures:
        warn("the runs have recorded nothing yet; the report shows their settings alone")
    facts = {"title": title, "version": __version__, "when": time.strftime("%Y-%m-%d %H:%M")}
    write_atomically(out / PAGE, render_page(study, tables, figures, facts).encode())


def table_rows(table: Table) -> list[dict[str, Any]]:
    """Write the rows as CSV, a line per row; ``source`` tells measured from reported."""
    return [
        {
            "row": line.label,
            "source": line.source,
            **{term: "x" if on else "" for term, on in (line.checks or {}).items()},
            **{column_name(name): line.shown.get(name, "") for name in table.columns},
        }
        for line in table.lines
    ]


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    """Columns are all keys in the order they first appear."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    packed = io.StringIO()
    writer = csv.DictWriter(packed, names, restval="", lineterminator="\n")
    writer.writerow({name: for_spreadsheet(name) for name in names})
    writer.writerows({name: for_spreadsheet(value) for name, value in row.items()} for row in rows)
    return packed.getvalue().encode()


def for_spreadsheet(value: Any) -> Any:
    """A cell as it is, but words that a spreadsheet would take for a formula with a quote before them."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    return value if _NUMBERS.fullmatch(value) else "'" + value


_NUMBERS = re.compile(r"[+-][\d.,eE%±\s]+")
