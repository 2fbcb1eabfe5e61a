"""Budgets and grids as the field writes them: ``8/255``, ``eps=3..15/255 num_steps=3..14``.

Inside the program they are floats in [0,1] pixels; these two functions are the only door.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction

Grid = Mapping[str, tuple[float, ...]]

ATTACK_LOSSES = ("ce", "kl", "margin", "squared")
"""What an attack may raise; a grid's field ``attack_loss`` holds places in this list."""

COMPARING = ("kl", "squared")
"""Attack losses that compare with the clean prediction, a forward pass more."""
DIRECTIONS = ("sign", "gradient")
"""Where a step of an L-inf attack goes: by the sign of each pixel's gradient, or along the gradient, its root
mean square 1 in each channel; a grid's field ``direction`` holds places in this list."""
NAMED_FIELDS = {"attack_loss": ATTACK_LOSSES, "direction": DIRECTIONS}
"""Fields of a strategy that name something -> the names, of which a grid holds places."""

NORM_NAMES = {"linf": "L-inf", "l2": "L2"}
"""The norms of a budget, as tables and figures write them."""
LENGTHS = ("eps", "step_size", "start_radius")
"""Fields of a strategy that are lengths in the norm of the attack, in [0,1] pixels."""

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE]-?\d+)?"
_VALUE = re.compile(rf"^({_NUMBER})(?:/(\d+))?$")
_RANGE = re.compile(r"^(\d+)\.\.(\d+)(?:/(\d+))?$")


def parse_budget(text: str) -> float:
    """``"8/255"`` or ``"0.031"`` -> float in [0,1] pixels; ValueError on anything else."""
    match = _VALUE.match(text.strip())
    if not match or match.group(2) == "0":
        raise ValueError(f"'{text}' is not a budget; write it as 8/255 or 0.031")
    return float(match.group(1)) / float(match.group(2) or 1)


def format_budget(value: float) -> str:
    """0.03137... -> ``"8/255"`` where that is exact, else the shortest decimal that reads back."""
    if abs(value) > 1e15:  # out of every range, but told in a message
        return repr(float(value))
    plain = repr(int(value)) if value == int(value) else repr(float(value))
    nearest = round(value * 255)
    return f"{nearest}/255" if len(plain) > 4 and nearest / 255 == value else plain


def format_threat(norm: str, eps: float) -> str:
    """``("l2", 0.5)`` -> ``"L2 eps 0.5"``: what an attack may change, ``eps`` in [0,1] pixels."""
    return f"{NORM_NAMES[norm]} eps {format_budget(eps)}"


def field_name(field: str, norm: str) -> str:
    """A strategy field as labels show it: lengths name their norm, ``eps (L2)``."""
    return f"{field} ({NORM_NAMES[norm]})" if field in LENGTHS and norm != "linf" else field


def parse_values(text: str) -> tuple[float, ...]:
    """``"3..5/255"`` -> (3/255, 4/255, 5/255); ``"0.1,0.2"`` -> (0.1, 0.2); else ValueError."""
    values: list[float] = []
    for part in text.split(","):
        match = _RANGE.match(part.strip())
        if match:
            first, last, over = int(match[1]), int(match[2]), int(match[3] or 1)
            if over == 0 or last < first or last - first > 10_000:
                raise ValueError(f"'{part}' is not a range; write it as 3..15/255")
            values += [float(Fraction(n)) / over for n in range(first, last + 1)]
        else:
            values.append(parse_budget(part))
    return tuple(values)


def parse_grid(text: str) -> dict[str, tuple[float, ...]]:
    """``"eps=3..15/255 num_steps=3..14"`` -> one entry per field, in the order written.

    ValueError naming the first item that is not FIELD=VALUES or stands twice.
    """
    grid: dict[str, tuple[float, ...]] = {}
    for item in text.split():
        name, equals, values = item.partition("=")
        if not equals or not name:
            raise ValueError(f"'{item}' is not FIELD=VALUES; write for example eps=3..15/255")
        if not values:
            raise ValueError(f"'{item}' has no values; write for example eps=3..15/255")
        if name in grid:
            raise ValueError(f"'{name}' stands twice in the grid; give each field once")
        grid[name] = _parse_names(name, values) if name in NAMED_FIELDS else parse_values(values)
    return grid


def format_grid(grid: Grid) -> str:
    """The inverse of parse_grid; consecutive whole numbers (over 255) fold into 3..15/255."""
    return " ".join(
        f"{name}={','.join(format_value(name, v) for v in values)}"
        if name in NAMED_FIELDS
        else f"{name}={_format_values(values)}"
        for name, values in grid.items()
    )


def format_value(field: str, value: float) -> str:
    """One value of a grid as its field is written: a loss by name, a budget as 8/255."""
    return NAMED_FIELDS[field][int(value)] if field in NAMED_FIELDS else format_budget(value)


def _parse_names(field: str, text: str) -> tuple[float, ...]:
    """``"attack_loss", "ce,margin"`` -> (0.0, 2.0)."""
    names, kind = NAMED_FIELDS[field], field.replace("_", " ")
    for word in text.split(","):
        if word not in names:
            raise ValueError(f"'{word}' is no {kind}; write some of {','.join(names)}")
    return tuple(float(names.index(word)) for word in text.split(","))


def _format_values(values: tuple[float, ...]) -> str:
    for over, suffix in ((1, ""), (255, "/255")):
        first = round(values[0] * over)
        folded = tuple(float(first + n) / over for n in range(len(values)))
        if len(values) > 2 and first >= 0 and folded == tuple(values):
            return f"{first}..{first + len(values) - 1}{suffix}"
    return ",".join(format_budget(value) for value in values)


def parse_lr_factor(text: str) -> tuple[str, float]:
    """``layer1.*=0.1`` -> ("layer1.*", 0.1); ValueError in words for anything else, or a factor that is not a
    positive number."""
    pattern, equals, number = text.rpartition("=")
    try:
        factor = float(number)
    except ValueError:
        factor = math.nan
    if not (equals and pattern and 0 < factor < math.inf):
        raise ValueError(f"'{text}' is no PATTERN=FACTOR with a factor above 0, such as layer1.*=0.1")
    return pattern, factor
