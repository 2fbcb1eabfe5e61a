"""Whether a repeated command asks for the run, or the sweep, that it was first given for."""

from __future__ import annotations

import textwrap
from typing import Any

from lasat_ray.config.json_io import flag
from lasat_ray.errors import UsageError


class OtherSettings(UsageError):
    """The place holds a run with other settings; nothing in it may be touched."""


def first_difference(asked: dict[str, Any], there: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """(path, value asked for, value of the run) of the first setting that differs, None where none does."""
    names = (name for name in {**asked, **there} if asked.get(name) != there.get(name))
    return next(((name, asked.get(name), there.get(name)) for name in names), None)


def other_settings(path: str, asked: Any, there: Any, out: object) -> OtherSettings:
    """The one line about a repeated command that asks for another run than the one in ``out``."""
    asked, there = (textwrap.shorten(_spelled(value), 80) for value in (asked, there))
    return OtherSettings(
        f"{flag(path)}: {asked} is not what '{out}' was started with ({there}); give that, choose another "
        f"--out, or continue it as it is with --resume {out}"
    )


def _spelled(value: Any) -> str:
    return " ".join(str(item) for item in value) if isinstance(value, (tuple, list)) else str(value)
