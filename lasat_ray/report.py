"""``python -m lasat_ray.report RUN [RUN ...] --out DIR``: figures, tables and manifests of runs.

One HTML file that needs no network, and beside it PNGs and CSVs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lasat_ray.cli.parsing import parse
from lasat_ray.cli.run_options import Switch, run_command
from lasat_ray.cli.streams import make_console
from lasat_ray.errors import UsageError
from lasat_ray.reporting.nets import evaluate_nets_for_report
from lasat_ray.reporting.study import read_study
from lasat_ray.reporting.write import PAGE, draw, make_folder, write_report
from lasat_ray.runs.trust import check_folder


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
    console = make_console(stderr=True)

    def warn(line: str) -> None:
        console.print(f"lasat-ray: warning: {line}", highlight=False, markup=False, soft_wrap=True)

    for run in options.runs:
        check_folder(Path(run), options.trust)
    study = read_study([Path(run) for run in options.runs])
    draw(study)  # before anything is written
    out = Path(options.out)
    make_folder(out)
    if not options.no_net:
        evaluate_nets_for_report(
            study, out / ".cache", n_examples=options.n_examples, trust=options.trust, warn=warn
        )
    write_report(study, out, title=options.title, png=not options.no_png, warn=warn)
    make_console().print(f"report: {out / PAGE}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
