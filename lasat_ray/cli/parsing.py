"""Options from dataclasses, and one line instead of tyro's boxes when an option is wrong.

Only the option's name is taken from what tyro prints; the message is formed from its type.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import tyro

from lasat_ray.cli.short_help import ALL, FOOTER, as_shortened, shortened
from lasat_ray.config.hints import expected, spec_of
from lasat_ray.config.json_io import flags_of
from lasat_ray.config.nearest import did_you_mean
from lasat_ray.errors import UsageError, refusal

T = TypeVar("T")


class HelpShown(SystemExit):
    """--help was printed; the command ends here, well."""


def parse(
    cls: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    default: T | None = None,
    known: Mapping[str, Any] | None = None,
    everyday: Collection[str] = (),
) -> T:
    """``argv`` as an instance of the dataclass ``cls``; UsageError in one line when it cannot be.

    ``known``: option -> type; flags_of(cls) unless given. ``everyday``: the options that --help shows where
    that shall not be all of them.
    """
    known = flags_of(cls) if known is None else known
    args, boxes = list(argv), io.StringIO()
    args, short = _help_asked(args)
    if everyday and short:
        cls = shortened(cls, everyday)
        default = default and as_shortened(cls, default)
        description += f"\n\n{FOOTER}"
    try:
        with contextlib.redirect_stderr(boxes):
            value, unknown = tyro.cli(
                cls,
                prog=prog,
                description=wrapped(description),
                args=args,
                default=default,
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise HelpShown(0) from None
        raise UsageError(_explain(boxes.getvalue(), args, known)) from None
    if unknown:
        raise UsageError(_explain_unknown(unknown[0], args, known))
    sys.stderr.write(boxes.getvalue())
    assert isinstance(value, cls)
    return value


def asks_help(args: Sequence[str]) -> bool:
    """Whether a command is only asked what it takes."""
    return bool({"--help", "-h", ALL} & set(args))


def _help_asked(args: Sequence[str]) -> tuple[list[str], bool]:
    """``args`` with --help-all as tyro knows it, and whether the short help will do."""
    return ["--help" if token == ALL else token for token in args], ALL not in args and asks_help(args)


def wrapped(description: str) -> str:
    """Paragraphs broken to the terminal's width, which tyro does not do; it joins lines that begin with
    a letter, hence the indent."""
    width = shutil.get_terminal_size().columns
    parts = description.split("\n\n")
    return "\n\n".join(textwrap.fill(part, width, subsequent_indent="  ") for part in parts)


def value_of(option: str, args: Sequence[str]) -> str | None:
    """The last value that follows an option, before tyro sees the line."""
    values = _values_of(option, args)
    return values[0] if values else None


def _values_of(option: str, args: Sequence[str]) -> list[str]:
    values: list[str] = []
    for i, token in enumerate(args):
        name, equals, value = token.partition("=")
        if name.replace("_", "-") != option:
            continue
        values = [value] if equals else []
        for following in [] if equals else args[i + 1 :]:
            if following.startswith("--"):
                break
            values.append(following)
    return values


def _explain(boxes: str, args: Sequence[str], known: Mapping[str, Any]) -> str:
    """One line for the box that tyro drew: the option it names, its value, what it takes."""
    option = next((name for name in re.findall(r"--[\w.-]+", boxes) if name in known), None)
    if option is None:  # no option to name: the box's own words
        return " ".join(re.sub(r"[╭╮╰╯│─]+", " ", boxes).split())
    values, hint = _values_of(option, args), known[option]
    if not values:
        return f"{option}: its value is missing; give {expected(hint)}"
    shown = " ".join(values)
    spec = spec_of(hint)
    if spec is not None:
        try:
            spec.instance_from_str(values)
        except ValueError as error:
            return f"{option}: {error}"
    return f"{option}: '{shown}' is not accepted; give {expected(hint)}"


def _explain_unknown(token: str, args: Sequence[str], known: Mapping[str, Any]) -> str:
    name = token.partition("=")[0]
    if not token.startswith("-"):
        option = _last_option_before(token, args, known)
        if option is None:
            return f"'{token}' follows no option; write for example --epochs 30"
        return f"{option}: '{token}' is one value too many; give {expected(known[option])}"
    return f"{name}: is not an option; {did_you_mean(name, known, '--help shows all options')}"


def _last_option_before(token: str, args: Sequence[str], known: Mapping[str, Any]) -> str | None:
    last = None
    for arg_ in args:
        name, _, value = arg_.partition("=")
        last = name if name in known else last
        if token in (arg_, value):
            break
    return last


def budget_spelled_out(args: Sequence[str]) -> list[str]:
    """``--budget 350passes`` and ``--budget=20minutes`` as the settings that they are short for."""
    spelled, rest = [], list(args)
    while rest:
        token = rest.pop(0)
        name, equals, value = token.partition("=")
        if name != "--budget":
            spelled.append(token)
            continue
        value = value if equals else rest.pop(0) if rest else ""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:[eE]\+?\d+)?)\s*(passes|minutes)\s*", value)
        if match is None:
            raise refusal("--budget", f"'{value}'", "is no budget", "write 350passes or 20minutes")
        spelled += [f"--budget-{match[2]}", match[1]]
    return spelled


def workers_spelled_out(args: Sequence[str]) -> list[str]:
    """``--num-workers 2..8`` as the two settings that it is short for; a plain number stays as it is."""
    if not args:
        return []  # "".split gives one empty word
    line = "\0".join(args)
    return re.sub(
        r"(?<![^\0])--num[-_]workers[\0=](\d+)\.\.(\d+)(?![^\0])",
        r"--min-workers\0\1\0--num-workers\0\2",
        line,
    ).split("\0")
