"""``python -m lasat_ray.predict RUN IMAGE...``: classes of image files, and whether they withstand an
attack."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from lasat_ray.api.predicted import PredictOptions, check_options, image_files, predicted, predictor
from lasat_ray.api.predicting import PredictResult
from lasat_ray.cli.parsing import asks_help, parse
from lasat_ray.cli.streams import make_console, printed_status
from lasat_ray.cluster.local import choose_device
from lasat_ray.config.files import check_local
from lasat_ray.errors import UsageError, refusal
from lasat_ray.reporting.write import csv_of
from lasat_ray.runs.checkpoint import write_atomically
from lasat_ray.runs.mirror import named_run

_FORMATS: dict[str, Literal["csv", "json"]] = {".csv": "csv", ".json": "json", ".jsonl": "json"}


def run(argv: Sequence[str]) -> int:
    """The command; exit status 0, or 1 where what it prints is lost. UserError for all else."""
    args = list(argv)
    if sum(not token.startswith("-") for token in args[:2]) < 2 and not asks_help(args):
        raise UsageError(
            "RUN and IMAGE are missing; for example: python -m lasat_ray.predict RUN_FOLDER photo.png"
        )
    description = "Classes of image files, and whether they withstand an attack."
    options = parse(PredictOptions, args, prog="python -m lasat_ray.predict", description=description)
    if options.out is not None and not any(arg.split("=")[0] == "--format" for arg in args):
        options = replace(options, format=_FORMATS.get(Path(options.out).suffix.lower(), "table"))
    check_options(options)
    _check_out(options)
    files = image_files(options.images)
    device = choose_device(options.device)
    of = predictor(Path(named_run(options.run)), which=options.which, trust=options.trust, device=device)
    found = PredictResult(*predicted(of, files, options))
    if options.format == "table":
        make_console().print(_table(found))
    else:
        _write(found.summary, options)
    return printed_status()


def _check_out(options: PredictOptions) -> None:
    """UsageError where the file cannot be written, or would not be."""
    check_local("--out", options.out)
    if options.out is not None and options.format == "table":
        raise refusal("--out", f"'{options.out}'", "takes no table", "add --format csv or json")
    if options.out is not None and Path(options.out).exists():
        raise UsageError(f"--out: '{options.out}' already exists; choose another file")


def _table(found: PredictResult) -> Table:
    table = Table(title=found.title or None, box=SIMPLE)
    for head in found.heads:
        table.add_column(head, overflow="fold")
    for cells in found.cells():
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _write(rows: list[dict[str, Any]], options: PredictOptions) -> None:
    if options.format == "csv":
        content = csv_of(rows)
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if options.out is None:
        sys.stdout.write(content.decode())
    else:
        write_atomically(Path(options.out), content)
