"""The packages of ``lasat_ray``, level over level: the table that imports obey, and its picture."""

from __future__ import annotations

import textwrap
from html import escape
from pathlib import Path

PICTURE = Path(__file__).parents[2] / "docs" / "packages.svg"
LEVELS: tuple[dict[str, str], ...] = (
    {"errors": "the one-line errors that a user reads"},
    {
        "types": "Batch, Strategy, Rollout, reports",
        "config": "every setting, its units, to and from JSON",
        "rng": "random numbers by seed, role, round and image",
        "process_group": "sums over workers; the device",
        "plugins": "outside code by module:name",
    },
    {
        "strategy": "the grid, and the net that chooses from it",
    },
    {
        "data": "image sources, split, batches",
        "models": "nets by name, folding, frozen copies",
        "recipes": "named configurations",
    },
    {
        "attacks": "PGD in per-image balls",
        "learners": "who chooses strategies and learns",
        "runs": "a run on disk: records, checkpoints",
        "validation": "refuses settings that cannot work",
    },
    {
        "cli": "command lines, help, progress",
        "evaluation": "accuracy under attack",
        "methods": "losses and attack rules, by paper",
    },
    {
        "update": "a step of the target net and its reward",
    },
    {"env": "one round as a Gymnasium step"},
    {"training": "rounds, epochs, recovery, summary"},
    {
        "cluster": "training and evaluation on Ray",
        "reporting": "figures, tables, the HTML page",
    },
    {"tune": "sweeps and searches on Ray Tune"},
    {"api": "functions from Python, the commands' work"},
    {
        "train": "a run, here or on workers",
        "evaluate": "accuracy of a net under attack",
        "report": "runs as one HTML file",
        "explain": "single images",
        "predict": "classes of image files",
        "export": "ONNX, torch.export, safetensors",
        "leaderboard": "evaluations in one table",
        "__main__": "the list of commands",
    },
)
"""Every entry of ``lasat_ray/`` and what it is for; it imports those of lower levels only."""
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
MAY_IMPORT_RAY = ("cluster", "tune")

_WIDTH, _LEFT, _BOX, _HEIGHT, _GAP, _PER_ROW = 900, 72, 196, 56, 6, 4
_STYLE = """
    .box { fill: #ffffff; stroke: #33506b; stroke-width: 1.5 }
    .ray { fill: #fdf1ea; stroke: #b0532a; stroke-width: 1.5 }
    .band { fill: #e4eef7 }
    .name { font-weight: 600; fill: #1b2a38 }
    .say { fill: #44586a; font-size: 12px }
"""


def picture() -> str:
    """The table as SVG text: the highest level on top, a box a package, orange where Ray is imported."""
    bands, top = [], 40
    for number in reversed(range(len(LEVELS))):
        band, height = _band(number, top)
        bands.append(band)
        top += height + _GAP
    told = "imports go down: a package imports those of lower levels only; the orange ones may import Ray"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 4}"'
            ' font-family="system-ui, sans-serif" font-size="15">',
            f"  <style>{_STYLE}  </style>",
            f'  <rect width="{_WIDTH}" height="{top + 4}" fill="#f7f9fb"/>',
            f'  <text class="say" x="12" y="25">{told}</text>',
            *bands,
            "</svg>\n",
        ]
    )


def _band(number: int, top: int) -> tuple[str, int]:
    """One level's rows of boxes from ``top`` down, and how high they are together, in pixels."""
    names = list(LEVELS[number].items())
    rows = [names[first : first + _PER_ROW] for first in range(0, len(names), _PER_ROW)]
    height = len(rows) * (_HEIGHT + _GAP) + _GAP
    lines = [
        f'  <rect class="band" x="{_GAP}" y="{top}" width="{_WIDTH - 2 * _GAP}" height="{height}" rx="6"/>',
        f'  <text class="name" x="34" y="{top + height // 2 + 5}" text-anchor="middle">{number}</text>',
    ]
    for row, boxes in enumerate(rows):
        for column, (name, what) in enumerate(boxes):
            x, y = _LEFT + column * (_BOX + _GAP), top + _GAP + row * (_HEIGHT + _GAP)
            lines.append(_box(name, what, x, y))
    return "\n".join(lines), height


def _box(name: str, what: str, x: int, y: int) -> str:
    kind, middle = "ray" if name in MAY_IMPORT_RAY else "box", x + _BOX // 2
    lines = textwrap.wrap(what, 27)
    text = [
        f'  <text class="say" x="{middle}" y="{y + 35 + 14 * n}" text-anchor="middle">{escape(line)}</text>'
        for n, line in enumerate(lines)
    ]
    box = f'  <rect class="{kind}" x="{x}" y="{y}" width="{_BOX}" height="{_HEIGHT}" rx="8"/>'
    title = f'  <text class="name" x="{middle}" y="{y + 19}" text-anchor="middle">{name}</text>'
    return "\n".join([box, title, *text])


def write(*, check: bool) -> int:
    """Draw the picture; with ``check`` only compare. Exit status: 1 where it would change."""
    if check:
        return int(not PICTURE.is_file() or PICTURE.read_text() != picture())
    PICTURE.write_text(picture())
    return 0
