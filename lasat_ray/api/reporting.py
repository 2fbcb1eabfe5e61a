"""``lasat_ray.report``: runs as a page, pictures and tables; the command of that name ends here too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from lasat_ray.api.loading import Source, path_of
from lasat_ray.api.results import FolderResult, TrainResult
from lasat_ray.api.words import in_python
from lasat_ray.cli.run_options import Switch
from lasat_ray.cli.streams import make_console
from lasat_ray.config.files import check_local
from lasat_ray.errors import UsageError
from lasat_ray.reporting.nets import evaluate_nets_for_report
from lasat_ray.reporting.study import Run, Study, read_study
from lasat_ray.reporting.write import PAGE, draw, make_folder, write_report
from lasat_ray.runs.trust import check_folder


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Which runs the report shows, and where it is written."""

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


@in_python
def report(
    runs: Source | Sequence[Source],
    /,
    out: str | Path = "report",
    *,
    title: str = ReportOptions.title,
    n_examples: int = 256,
    nets: bool = True,
    png: bool = True,
    trust: bool = False,
) -> FolderResult:
    """Figures, tables and manifests of runs as one HTML file; what ``python -m lasat_ray.report`` does.

    ``runs``: run folders or what ``train`` gave back, one or several; those that differ in the seed alone are
    shown as one group. ``out``: the report's folder; one that is there is brought up to date. ``nets``: ask
    the nets too, on ``n_examples`` test images; ``png``: also write every figure as PNG. The result's
    ``summary`` has a row a run, its ``page`` is the file to open.

    UsageError or UserError in one line for whatever cannot work.
    """
    several = [runs] if isinstance(runs, str | Path | TrainResult) else list(runs)
    if not several:
        raise UsageError("runs: names none; give a run folder, or what train gave back")
    found = [path_of(source) for source in several]
    options = ReportOptions(
        runs=tuple(str(path) for path, _ in found),
        out=str(out),
        title=title,
        n_examples=n_examples,
        no_net=not nets,
        no_png=not png,
        trust=trust or all(trusted for _, trusted in found),
    )
    console = make_console(stderr=True)
    study = make_report(options, lambda line: console.print(f"lasat-ray: warning: {line}", soft_wrap=True))
    return FolderResult(Path(out), Path(out) / PAGE, [_row(run) for run in study.runs])


def make_report(options: ReportOptions, warn: Callable[[str], None]) -> Study:
    """Write the report that ``options`` ask for; UsageError or UserError in one line where it cannot be."""
    if options.n_examples < 1:
        raise UsageError(f"--n-examples: {options.n_examples} is out of range; give 1 or more")
    for run in options.runs:
        check_folder(Path(run), options.trust)
    study = read_study([Path(run) for run in options.runs])
    draw(study)  # before anything is written
    check_local("--out", options.out)
    out = Path(options.out)
    make_folder(out)
    if not options.no_net:
        evaluate_nets_for_report(
            study, out / ".cache", n_examples=options.n_examples, trust=options.trust, warn=warn
        )
    write_report(study, out, title=options.title, png=not options.no_png, warn=warn)
    return study


def _row(run: Run) -> dict[str, Any]:
    """A run in one line: who it was, how far it came, what it reached."""
    settings = {name: run.config[name] for name in ("method", "strategy", "seed")}
    figures = {
        name: value
        for name, value in (run.summary or {}).items()
        if name == "clean_acc" or name.startswith("robust_acc_")
    }
    passes = (run.summary or {}).get("passes_per_image", math.nan)
    return {"run": run.name, **settings, "status": run.status, **figures, "passes": passes}
