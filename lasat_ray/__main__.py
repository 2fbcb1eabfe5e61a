"""``python -m lasat_ray``: what the program is for, three commands to begin with, and all of them."""

from __future__ import annotations

import ast
import shutil
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

from lasat_ray.cli.command import run_command
from lasat_ray.cli.streams import printed_status
from lasat_ray.errors import UsageError

GROUPS = {
    "Train": (
        "lasat_ray.train",
        "lasat_ray.tune.sweep_k",
        "lasat_ray.tune.sweep_weights",
        "lasat_ray.tune.search_strategy",
    ),
    "Measure": ("lasat_ray.evaluate", "lasat_ray.leaderboard"),
    "Look": ("lasat_ray.report", "lasat_ray.explain"),
    "Use": ("lasat_ray.predict", "lasat_ray.export"),
}


ABOUT = (
    "lasat-ray trains image classifiers that withstand attacks: a strategy net learns, image by image, how "
    "to attack in training (LAS-AT). Three commands to begin with, on digits that need no download:"
)
FIRST = (
    "  python -m lasat_ray.train --epochs 2 --out runs/first",
    "  python -m lasat_ray.evaluate runs/first --attacks clean fgsm pgd-10",
    "  python -m lasat_ray.report runs/first --out runs/report",
)


def main(argv: list[str] | None = None) -> int:
    """The list; exit status 2 for anything but --help."""
    return run_command(lambda: _list(sys.argv[1:] if argv is None else argv))


def _list(argv: list[str]) -> int:
    if argv and argv[0] not in ("--help", "-h"):
        raise UsageError(f"'{argv[0]}' is no option; a command is written python -m lasat_ray.train")
    print(render_commands(shutil.get_terminal_size().columns))  # noqa: T201
    return printed_status()


def render_commands(width: int) -> str:
    """Every command under its heading; what it says of itself is the head of its file."""
    lines = [*textwrap.wrap(ABOUT, max(width, 40)), "", *FIRST, "", "usage: python -m COMMAND --help", ""]
    for heading, names in GROUPS.items():
        lines.append(f"{heading}:")
        for name in names:
            about = textwrap.wrap(purpose(name), max(width, 40) - 4)
            lines += [f"  {name}", *(f"    {line}" for line in about)]
    return "\n".join(lines)


def purpose(module: str) -> str:
    """The first paragraph of a command's file behind the colon; the file is read, not run."""
    spec = find_spec(module)
    assert spec and spec.origin
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).partition("``: ")[2]


if __name__ == "__main__":
    sys.exit(main())
