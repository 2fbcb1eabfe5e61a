"""``python -m lasat_ray.report RUN [RUN ...] --out DIR``: figures, tables and manifests of runs.

One HTML file that needs no network, and beside it PNGs and CSVs.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from tyro.conf import Positional, arg

from lasat_ray import __version__
from lasat_ray.checkpoint import write_atomically
from lasat_ray.commandline import Switch, run_command
from lasat_ray.errors import UsageError, UserError
from lasat_ray.options import parse
from lasat_ray.reporting.figure import Figure
from lasat_ray.reporting.figures import draw_all
from lasat_ray.reporting.nets import ask_nets
from lasat_ray.reporting.page import render_page
from lasat_ray.reporting.scores import column_name
from lasat_ray.reporting.study import Study, read_study
from lasat_ray.reporting.tables import Table, all_tables
from lasat_ray.trust import check_folder

PAGE = "report.html"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Which runs, and where to."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN [RUN ...]", help_behavior_hint="")]
    """Run folders, finished or not; runs that differ in the seed alone are shown as one group."""
    out: str = "report"
    """Folder of the report; one that is there is brought up to date."""
    title: str = "lasat-ray report"
    """Heading of the page."""
    n_examples: int = 256
    """Test images on which the nets are asked (accuracy against eps, classes, confusion)."""
    no_net: Switch = False
    """Only what the runs recorded; no net is loaded, no data set read."""
    no_png: Switch = False
    """Leave the PNG files out."""
    trust: Switch = False
    """Run the code that a run names as module:function."""
    debug: Switch = False
    """Show tracebacks."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit status 0, 1 (run time) or 2 (usage)."""
    return run_command(lambda: _report(sys.argv[1:] if argv is None else argv))


def _report(argv: Sequence[str]) -> int:
    args = list(argv)
    if (not args or args[0].startswith("-")) and not {"--help", "-h"} & set(args):
        raise UsageError("RUN is missing; write it first: python -m lasat_ray.report RUN_FOLDER --out report")
    description = "Figures, tables and manifests of runs as one HTML file that needs no network."
    options = parse(ReportOptions, args, prog="python -m lasat_ray.report", description=description)
    if options.n_examples < 1:
        raise UsageError(f"--n-examples: {options.n_examples} is out of range; give 1 or more")
    console = Console(stderr=True)

    def warn(line: str) -> None:
        console.print(f"lasat-ray: warning: {line}", highlight=False, markup=False, soft_wrap=True)

    for run in options.runs:
        check_folder(Path(run), options.trust)
    study = read_study([Path(run) for run in options.runs])
    draw(study)  # before anything is written
    out = Path(options.out)
    make_folder(out)
    if not options.no_net:
        ask_nets(study, out / ".cache", n_examples=options.n_examples, trust=options.trust, warn=warn)
    write_report(study, out, title=options.title, png=not options.no_png, warn=warn)
    Console().print(f"report: {out / PAGE}", highlight=False, soft_wrap=True)
    return 0


def make_folder(out: Path) -> None:
    """UsageError where the report cannot lie there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: cannot make '{out}' ({error.strerror}); choose another folder") from error


def draw(study: Study) -> tuple[list[Figure], list[Table]]:
    """Every figure and table; UserError naming the run whose records cannot be drawn."""
    try:
        return draw_all(study), all_tables(study)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if len(study.runs) > 1:
            for group in study.groups:
                for run in group.runs:
                    draw(Study([dataclasses.replace(group, runs=[run])]))
        told = f"{type(error).__name__}: {error}"
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
    """A row a line, ``source`` telling measured from reported."""
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
    writer.writeheader()
    writer.writerows(rows)
    return packed.getvalue().encode()


if __name__ == "__main__":
    sys.exit(main())
