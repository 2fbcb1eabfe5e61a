"""``python -m lasat_ray.report RUN [RUN ...] --out DIR``: figures, tables and manifests of runs.

One HTML file that needs no network, and beside it PNGs and CSVs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lasat_ray.api.reporting import ReportOptions, make_report
from lasat_ray.cli.parsing import asks_help, parse
from lasat_ray.cli.streams import make_console
from lasat_ray.errors import UsageError
from lasat_ray.reporting.write import PAGE
from lasat_ray.runs.mirror import named_run


def run(argv: Sequence[str]) -> int:
    """The command; exit status 0, or 1 where what it prints is lost. UserError for all else."""
    args = list(argv)
    if (not args or args[0].startswith("-")) and not asks_help(args):
        raise UsageError("RUN is missing; write it first: python -m lasat_ray.report RUN_FOLDER --out report")
    description = "Figures, tables and manifests of runs as one HTML file that needs no network."
    options = parse(ReportOptions, args, prog="python -m lasat_ray.report", description=description)
    options = replace(options, runs=tuple(named_run(run) for run in options.runs))
    console = make_console(stderr=True)

    def warn(line: str) -> None:
        console.print(f"lasat-ray: warning: {line}", highlight=False, markup=False, soft_wrap=True)

    make_report(options, warn)
    make_console().print(f"report: {Path(options.out) / PAGE}", highlight=False, soft_wrap=True)
    return 0
