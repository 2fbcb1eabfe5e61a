"""``python -m lasat_ray.leaderboard PATH...``: many evaluations in one table, beside published rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.box import SIMPLE
from rich.table import Table
from tyro.conf import Positional, arg

from lasat_ray.cli.parsing import parse
from lasat_ray.cli.run_options import Switch
from lasat_ray.cli.streams import make_console, printed_status
from lasat_ray.config.files import check_local
from lasat_ray.config.loss import SEVERAL
from lasat_ray.config.units import NORM_NAMES
from lasat_ray.errors import UsageError, UserError
from lasat_ray.evaluation.board import STANDARD, Row, check_classes, find_reports, measured_row
from lasat_ray.recipes import RECIPES, Recipe, robustbench
from lasat_ray.runs.checkpoint import write_atomically


@dataclass(frozen=True, kw_only=True)
class LeaderboardOptions:
    """Which evaluations, against which published rows."""

    paths: Annotated[Positional[tuple[str, ...]], SEVERAL, arg(metavar="[PATH [PATH ...]]")] = ()
    """evaluation.json files, or folders that are searched for them."""
    dataset: str | None = None
    """Only rows of this data set, for example cifar10; None shows those that the evaluations name."""
    no_reported: Switch = False
    """Leave the published rows out."""
    out: str | None = None
    """Also write the rows here: NAME.json, or NAME.md as a Markdown table."""
    debug: Switch = False
    """Show tracebacks."""


TABLES = ("Table 2", "Table 3", "Table 4", "GTSRB")
"""Those that state the data set's best published nets under AutoAttack."""
COLUMNS = (
    "rank",
    "method",
    "clean",
    "AA",
    "worst case",
    "unreliable",
    "extra data",
    "architecture",
    "source",
)


def run(argv: Sequence[str]) -> int:
    """The command; exit status 0, or 1 where what it prints is lost. UserError for all else."""
    options = parse(
        LeaderboardOptions,
        argv,
        prog="python -m lasat_ray.leaderboard",
        description="One table of many evaluations, with the published rows as reported.",
    )
    check_local("--out", options.out)
    if options.out and Path(options.out).suffix not in (".json", ".md"):
        raise UsageError(f"--out: '{options.out}' is neither NAME.json nor NAME.md; give one of them")
    if not options.paths and options.dataset is None:
        raise UsageError("PATH is missing; name evaluation.json files or folders, or a --dataset")
    files = find_reports([Path(path) for path in options.paths])
    measured = [measured_row(file) for file in files]
    check_classes(files)
    names = [options.dataset] if options.dataset else list(dict.fromkeys(row.dataset for row in measured))
    rows = {name: ranked(measured, name, reported=not options.no_reported) for name in names}
    if not any(rows.values()):
        known = ", ".join(sorted({row.dataset for row in reported_rows()}))
        raise UserError(f"--dataset: nothing is known of '{names[0]}'; published rows exist for {known}")
    console = make_console()
    for name in names:
        console.print(_rich_table(name, rows[name]))
    if not options.out:
        return printed_status()
    _write(Path(options.out), rows)
    return 0


def ranked(measured: Sequence[Row], dataset: str, *, reported: bool = True) -> list[Row]:
    """Rows of one data set, best AutoAttack accuracy first.

    Behind them, out of competition, come rows of another budget (see ``budget_of``) and rows without
    AutoAttack.
    """
    rows = [row for row in measured if row.dataset == dataset]
    if reported:
        rows += [row for row in reported_rows() if row.dataset == dataset]
    budget = budget_of(rows)
    return sorted(rows, key=lambda row: (not competes(row, budget), -(row.aa or 0.0), -(row.clean or 0.0)))


def budget_of(rows: Sequence[Row]) -> str:
    """The norm and eps that rows compete under: the published rows', else those of most evaluations with
    AutoAttack. Accuracies under others are no better or worse."""
    if any(row.source == "reported" for row in rows):
        return STANDARD
    counted = Counter(row.budget for row in rows if row.aa is not None)
    return min(counted, key=lambda budget: (-counted[budget], budget != STANDARD, budget), default=STANDARD)


def reported_rows() -> list[Row]:
    """The published rows with an accuracy under AutoAttack: leaderboards, Tables 2 to 4, GTSRB, and the first
    rows of RobustBench, for which there is no recipe."""
    recipes = [recipe for recipe in RECIPES.values() if recipe.entry or recipe.table in TABLES]
    return [*map(_reported, recipes), *map(_without_recipe, robustbench.ROWS)]


def _without_recipe(row: robustbench.Published) -> Row:
    name, venue = robustbench.NAMES[row.slug]
    return Row(
        dataset=row.dataset,
        method=f"{name}, {venue}",
        clean=row.clean / 100,
        aa=row.aa / 100,
        worst=None if row.worst is None else row.worst / 100,
        architecture=row.architecture,
        extra_data=row.extra_data,
        source="reported",
        venue=venue,
    )


def _reported(recipe: Recipe) -> Row:
    entry, method = recipe.entry, recipe.row or ""
    if entry is None and method.startswith("LAS"):
        method += " (talk)" if recipe.table == "GTSRB" else f" (paper, {recipe.table})"
    return Row(
        dataset=recipe.config.dataset,
        method=entry.title if entry else method,
        clean=recipe.reported["clean"] / 100,
        aa=recipe.reported["aa"] / 100,
        architecture="" if recipe.table == "GTSRB" else _architecture(recipe.config.model),
        extra_data=bool(entry and entry.extra_data),
        source="reported",
        published_rank=entry.rank if entry else None,
        venue=entry.venue if entry else "",
    )


def _architecture(model: str) -> str:
    """As publications spell it: wrn-34-10 -> WideResNet-34-10."""
    model = model.removeprefix("dm_").removesuffix("-silu").replace("wrn-", "WideResNet-")
    return model.replace("preact_resnet", "PreActResNet-").replace("resnet", "ResNet-")


def competes(row: Row, budget: str) -> bool:
    """True if AutoAttack was run, with ``budget``."""
    return row.aa is not None and row.budget == budget


def _places(rows: Sequence[Row]) -> list[int | None]:
    """1, 2, 3, ... for the rows that compete, None for the others."""
    budget = budget_of(rows)
    return [rank if competes(row, budget) else None for rank, row in enumerate(rows, 1)]


def _cells(rank: int | None, row: Row, budget: str) -> tuple[str, ...]:
    source = row.source + (f", n = {row.n}" if row.n else "")
    source += f", {row.budget}" if row.budget != budget else ""
    source += f", no. {row.published_rank} there" if row.published_rank else ""
    extra = "" if row.extra_data is None else ("yes" if row.extra_data else "no")
    clean, aa = ("" if value is None else f"{100 * value:.2f} %" for value in (row.clean, row.aa))
    place = "" if rank is None else str(rank)
    worst = "" if row.worst is None else f"{100 * row.worst:.2f} %"
    if row.worst_interval:
        worst += f" ({100 * row.worst_interval[0]:.1f} to {100 * row.worst_interval[1]:.1f})"
    return (
        place,
        row.method,
        clean,
        aa,
        worst,
        "yes" if row.unreliable else "no",
        extra,
        row.architecture,
        source,
    )


def _rich_table(dataset: str, rows: Sequence[Row]) -> Table:
    """As ``COLUMNS``, for 80 columns of a terminal: what is unreliable is said beside the method."""
    norm, _, eps = budget_of(rows).partition(" ")
    title = f"{dataset}: accuracy under AutoAttack, {NORM_NAMES[norm]} eps {eps}"
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for name in COLUMNS:
        number = name in ("rank", "clean", "AA", "worst case")
        if name != "unreliable" and (name != "worst case" or any(row.worst is not None for row in rows)):
            whole = name in ("rank", "clean", "AA")
            justify: Literal["left", "right"] = "right" if number else "left"
            table.add_column(name.removesuffix(" data"), justify=justify, no_wrap=whole, overflow="fold")
    for rank, row in zip(_places(rows), rows, strict=True):
        place, method, clean, aa, worst, unreliable, *rest = _cells(rank, row, budget_of(rows))
        told = f"{method} (unreliable)" if unreliable == "yes" else method
        style = "bold" if row.source == "measured" else ""
        worsts = [worst] if any(row.worst is not None for row in rows) else []
        table.add_row(place, told, clean, aa, *worsts, *rest, style=style)
    return table


def _write(path: Path, rows: dict[str, list[Row]]) -> None:
    if path.suffix == ".json":
        content = {
            name: [{"rank": rank, **asdict(row)} for rank, row in zip(_places(some), some, strict=True)]
            for name, some in rows.items()
        }
        write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
        return
    lines: list[str] = []
    for name, some in rows.items():
        lines += [f"## {name}", "", _markdown(COLUMNS), _markdown(["---"] * len(COLUMNS))]
        budget = budget_of(some)
        lines += [_markdown(_cells(*pair, budget)) for pair in zip(_places(some), some, strict=True)] + [""]
    write_atomically(path, "\n".join(lines).encode())


def _markdown(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
