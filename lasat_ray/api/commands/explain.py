"""``python -m lasat_ray.explain RUN IMAGE...``: what the nets make of single images, and how near
each is to being mistaken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.table import Table
from rich.text import Text

from lasat_ray.api.explained import (
    Explained,
    ExplainOptions,
    explained,
    format_eps,
    largest_eps,
    picture,
    smallest_eps,
)
from lasat_ray.cli.parsing import asks_help, parse
from lasat_ray.cli.streams import make_console
from lasat_ray.config.files import check_local, place_of_results
from lasat_ray.config.units import NORM_NAMES, field_name, format_value
from lasat_ray.errors import UsageError
from lasat_ray.reporting.to_png import to_png
from lasat_ray.reporting.write import make_folder
from lasat_ray.runs.checkpoint import write_atomically
from lasat_ray.runs.mirror import named_run

__all__ = ["ExplainOptions", "format_eps", "run", "smallest_eps"]


def run(argv: Sequence[str]) -> int:
    """The command; exit status 0, or 1 where what it prints is lost. UserError for all else."""
    args = list(argv)
    if sum(not token.startswith("-") for token in args[:2]) < 2 and not asks_help(args):
        raise UsageError("RUN and IMAGE are missing; for example: python -m lasat_ray.explain RUN_FOLDER 0 1")
    description = "Prediction, chosen strategy and smallest fooling eps of single images."
    options = parse(ExplainOptions, args, prog="python -m lasat_ray.explain", description=description)
    options = replace(options, run=named_run(options.run))
    check_local("--out", options.out)
    out = Path(options.out) if options.out else place_of_results(Path(options.run)) / "explain.png"
    found = explained(options)
    console = make_console()
    console.print(_image_table(options, found))
    for table in _strategy_tables(found, console.width):
        console.print(table)
    make_folder(out.parent)
    write_atomically(out, to_png(picture(found)))
    console.print(f"picture: {out}", highlight=False, soft_wrap=True)
    return 0


def _image_table(options: ExplainOptions, found: Explained) -> Table:
    title = (
        f"Smallest {NORM_NAMES[found.norm]} eps: PGD-{options.num_steps}, {options.restarts} starts, known "
        f"to {255 * options.resolution:.2g}/255; an upper bound"
    )
    table = Table(title=title)
    for name in ("image", "label", "seen as", "next", "smallest eps", "then seen as"):
        table.add_column(name, overflow="fold", no_wrap=name == "smallest eps")
    for n, name in enumerate(found.names):
        best = found.p[n].topk(min(2, len(found.classes)))
        told = [f"{found.classes[int(c)]} {100 * float(v):.1f} %" for v, c in zip(*best, strict=True)]
        label = "" if found.y[n] < 0 else found.classes[int(found.y[n])]
        after = found.classes[int(found.after[n])] if torch.isfinite(found.eps[n]) else ""
        table.add_row(
            *(name, label, told[0], told[1] if len(told) > 1 else ""),
            format_eps(float(found.eps[n]), largest_eps(found.norm, found.x[0].numel())),
            after,
        )
    return table


def _strategy_tables(found: Explained, width: int) -> list[Table]:
    """How likely the policy takes each value, in bold the likeliest: a table a field, or several beside which
    no column would fit into ``width``."""
    tables = []
    name_width = 3 + max(len("image"), *map(len, found.names))
    for field, (values, share) in found.shares.items():
        heads = [format_value(field, value) for value in values]
        fitting = max(1, (width - 1 - name_width) // (3 + max(map(len, heads))))
        for first in range(0, len(heads), fitting):
            table = Table(title=f"Strategy: {field_name(field, found.attack_norm)}, probability in %")
            table.add_column("image", no_wrap=True)
            for head in heads[first : first + fitting]:
                table.add_column(head, justify="right", no_wrap=True)
            for name, row in zip(found.names, share.tolist(), strict=True):
                likeliest = row.index(max(row))
                shown = [(f"{100 * p:.0f}", "bold" if n == likeliest else "") for n, p in enumerate(row)]
                table.add_row(name, *(Text(*cell) for cell in shown[first : first + fitting]))
            tables.append(table)
    return tables
