"""``python -m lasat_ray.predict RUN IMAGE...``: classes of image files, and whether they withstand an
attack."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional, arg

from lasat_ray.api.predicting import Predictor, UnderAttack, image_files, predictions, predictor
from lasat_ray.cli.parsing import asks_help, parse
from lasat_ray.cli.run_options import Switch, run_command
from lasat_ray.cli.streams import make_console, printed_status
from lasat_ray.cluster.local import choose_device
from lasat_ray.config import Budget
from lasat_ray.config.files import check_local
from lasat_ray.config.units import format_threat
from lasat_ray.errors import UsageError, check_least, refusal
from lasat_ray.reporting.write import csv_of
from lasat_ray.runs.checkpoint import write_atomically
from lasat_ray.runs.mirror import named_run


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Which net, which images, and how they are told."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder, checkpoint, or a folder or safetensors file that lasat_ray.export wrote."""
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE [IMAGE ...]", help_behavior_hint="")]
    """Image files, and folders of them."""
    format: Literal["table", "csv", "json"] = "table"
    """json is an object a line."""
    out: str | None = None
    """New file for csv or json; None prints them."""
    top: int = 1
    """The likeliest classes, so many of them."""
    under_attack: Switch = False
    """Also attack each image, away from the class that the net names: whether it withstands."""
    eps: Budget | None = None
    """With --under-attack: budget in [0,1] pixels; None means the run's own."""
    num_steps: int = 20
    """With --under-attack: PGD steps."""
    batch_size: int = 64
    """Images passed at once."""
    which: Literal["best", "last"] = "best"
    """Checkpoint of a run folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    trust: Switch = False
    """Run the code that the run names as module:function."""
    debug: Switch = False
    """Show tracebacks."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit status 0, 1 (run time) or 2 (usage)."""
    return run_command(lambda: _predict(sys.argv[1:] if argv is None else argv))


def _predict(argv: Sequence[str]) -> int:
    args = list(argv)
    if sum(not token.startswith("-") for token in args[:2]) < 2 and not asks_help(args):
        raise UsageError(
            "RUN and IMAGE are missing; for example: python -m lasat_ray.predict RUN_FOLDER photo.png"
        )
    description = "Classes of image files, and whether they withstand an attack."
    options = parse(PredictOptions, args, prog="python -m lasat_ray.predict", description=description)
    check_options(options)
    files = image_files(options.images)
    device = choose_device(options.device)
    found = predictor(Path(named_run(options.run)), which=options.which, trust=options.trust, device=device)
    under = _attack_of(options, found) if options.under_attack else None
    rows = predictions(found, files, top=options.top, batch_size=options.batch_size, under=under)
    if options.format == "table":
        make_console().print(prediction_table(list(rows), options, under))
    else:
        _write(rows, options)
    return printed_status()


def check_options(options: PredictOptions) -> None:
    """UsageError for what is out of range or would have no effect."""
    least = {"top": options.top, "num-steps": options.num_steps, "batch-size": options.batch_size}
    check_least({name: (1, value) for name, value in least.items()})
    if options.eps is not None and not options.eps > 0:
        raise refusal("--eps", f"{options.eps:g}", "is no budget", "give more than 0, say 8/255")
    for name, value, default in (("eps", options.eps, None), ("num-steps", options.num_steps, 20)):
        if value != default and not options.under_attack:
            raise refusal(f"--{name}", value, "has no effect without --under-attack", "add it")
    check_local("--out", options.out)
    if options.out is not None and options.format == "table":
        raise refusal("--out", f"'{options.out}'", "takes no table", "add --format csv or json")
    if options.out is not None and Path(options.out).exists():
        raise UsageError(f"--out: '{options.out}' already exists; choose another file")


def _attack_of(options: PredictOptions, found: Predictor) -> UnderAttack:
    eps = options.eps if options.eps is not None else found.eps
    if not eps:
        raise UsageError(f"--eps: '{options.run}' does not say what it withstands; give it, say 8/255")
    return UnderAttack(norm=found.norm, eps=eps, steps=options.num_steps)


def prediction_table(rows: list[dict[str, Any]], options: PredictOptions, under: UnderAttack | None) -> Table:
    """The rows as a person reads them."""
    title = f"PGD-{under.steps}, {format_threat(under.norm, under.eps)}" if under else None
    table = Table(title=title, box=SIMPLE)
    for name in ("image", "class", *(["then next"] if options.top > 1 else [])):
        table.add_column(name, overflow="fold")
    if under:
        table.add_column("under attack", overflow="fold")
    for row in rows:
        others = [
            _share(row[f"class_{n}"], row[f"confidence_{n}"])
            for n in range(2, options.top + 1)
            if f"class_{n}" in row
        ]
        cells = [row["image"], _share(row["class"], row["confidence"])]
        cells += [", ".join(others)] if options.top > 1 else []
        if under:
            left = f"{row['class']} keeps {100 * row['confidence_under_attack']:.1f} %"
            cells.append(left if row["withstands"] else f"{row['class_under_attack']} ({left})")
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _share(name: str, confidence: float) -> str:
    return f"{name} {100 * confidence:.1f} %"


def _write(rows: Iterable[dict[str, Any]], options: PredictOptions) -> None:
    if options.format == "csv":
        content = csv_of(list(rows))
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if options.out is None:
        sys.stdout.write(content.decode())
    else:
        write_atomically(Path(options.out), content)


if __name__ == "__main__":
    sys.exit(main())
