"""The command line of the commands: flags from the config tree, errors in one line.

``tyro`` reads the flags from the dataclasses. Its error boxes are replaced: only the option's name
is taken from them, and the message is formed here from the option's type.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import shlex
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff, arg
from tyro.constructors import PrimitiveConstructorSpec

from lasat_ray.config import TrainConfig
from lasat_ray.config_io import flag, leaves, read_config
from lasat_ray.errors import UsageError, UserError
from lasat_ray.recipes import RECIPES, get_recipe

T = TypeVar("T")
Switch = Annotated[bool, FlagCreatePairsOff]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how a run executes; nothing here changes what it computes."""

    num_workers: int = 0
    """Ray Train workers; 0 trains in this process without Ray."""
    cpus_per_worker: float | None = None
    """Processor cores each worker reserves; None shares what the machine has."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    address: str | None = None
    """Running Ray cluster to join, for example auto, HOST:PORT or ray://HOST:PORT."""
    out: str | None = None
    """Run folder, new; None means runs/NAME."""
    resume: str | None = None
    """Run folder to continue; its settings hold unless flags change them."""
    compare: str | None = None
    """Also train this method with its fixed attack for equal rounds, for example pgd-at."""
    max_failures: int = 3
    """Restarts from the last checkpoint after a worker is lost."""
    start_timeout: float = 120.0
    """Seconds to wait for the workers to start."""
    dry_run: Switch = False
    """Print the settings of the run and stop."""
    list_recipes: Switch = False
    """Print the recipes with their published numbers and stop."""
    debug: Switch = False
    """Show tracebacks."""


@dataclass(frozen=True, kw_only=True)
class _Train:
    train: Annotated[TrainConfig, arg(name="")]
    run: Annotated[RunOptions, arg(name="")]


_DESCRIPTION = (  # tyro breaks lines only between paragraphs
    "Adversarial training with a learnable attack strategy (LAS-AT); defaults are the --recipe's.\n\n"
    "Budgets are in [0,1] pixels, written 8/255 or 0.031; -k N is short for --update-interval N."
)


def parse_train(argv: Sequence[str]) -> tuple[TrainConfig, RunOptions]:
    """The settings of a training run. Defaults come from --resume's folder, else from --recipe.

    Names and ranges are not checked here but in ``validate.check``. Exits with 0 after --help.
    """
    args = [re.sub(r"^-k(?==|$)", "--update-interval", token) for token in argv]
    resume, recipe = _value_of("--resume", args), _value_of("--recipe", args)
    if resume is not None and recipe is not None:
        raise UsageError(f"--recipe: '{recipe}' cannot be set with --resume; leave --recipe out")
    if resume is not None:
        config = read_config(Path(resume) / "config.json")
    else:
        config = get_recipe(recipe if recipe is not None else TrainConfig().recipe).config
    default = _Train(train=config, run=RunOptions())
    known = {**flags_of(TrainConfig), **flags_of(RunOptions)}
    parsed = parse(
        _Train, args, prog="python -m lasat_ray.train", description=_DESCRIPTION, default=default, known=known
    )
    return parsed.train, parsed.run


def parse(
    cls: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    default: T | None = None,
    known: Mapping[str, Any] | None = None,
) -> T:
    """``argv`` as an instance of the dataclass ``cls``; UsageError in one line when it cannot be.

    ``known``: option -> type; flags_of(cls) unless given.
    """
    known = flags_of(cls) if known is None else known
    args, boxes = list(argv), io.StringIO()
    try:
        with contextlib.redirect_stderr(boxes):
            value, unknown = tyro.cli(
                cls, prog=prog, description=description, args=args, default=default, return_unknown_args=True
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise UsageError(_explain(boxes.getvalue(), args, known)) from None
    if unknown:
        raise UsageError(_explain_unknown(unknown[0], args, known))
    sys.stderr.write(boxes.getvalue())
    assert isinstance(value, cls)
    return value


def run_command(main: Callable[[], int], *, debug: bool | None = None) -> int:
    """Run a command and return its exit status; a failure is one line on stderr.

    A traceback appears only with ``debug``, which by default is --debug on this command line.
    """
    debug = "--debug" in sys.argv[1:] if debug is None else debug
    try:
        return main()
    except KeyboardInterrupt:
        return _fail("interrupted", 130, debug)
    except BrokenPipeError:  # the reader of our output is gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UserError as error:
        return _fail(str(error), error.status, debug)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        return _fail(f"{told} (a bug of ours; rerun with --debug and report what it shows)", 1, debug)


def render_config(config: TrainConfig) -> str:
    """Every setting as the command line spells it, one a line; reads back to the same config."""
    hints = flags_of(TrainConfig)
    return "\n".join(_render(flag(path), hints[flag(path)], value) for path, value in leaves(config))


def render_recipes() -> Any:
    """A rich table of the recipes: name, published table and row, reported numbers."""
    from rich.table import Table

    table = Table(title="Recipes (numbers as published, %; time in minutes)")
    table.add_column("--recipe", no_wrap=True)
    for title in ("table", "row", "reported"):
        table.add_column(title)
    for recipe in RECIPES.values():
        numbers = ", ".join(f"{name} {value:g}" for name, value in recipe.reported.items())
        table.add_row(recipe.name, recipe.table or "-", recipe.row or "-", numbers or recipe.summary)
    return table


def flags_of(cls: type, prefix: str = "") -> dict[str, Any]:
    """Option -> type for every setting of a dataclass tree: ``{"--reward.alpha": float, ...}``."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if is_dataclass(hint):
            found |= flags_of(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            found[flag(prefix + name)] = hint
    return found


def _fail(message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"lasat-ray: error: {' '.join(message.split())}\n")
    return status


def _render(option: str, hint: Any, value: Any) -> str:
    if isinstance(value, bool):
        head, _, tail = option[2:].rpartition(".")
        return option if value else f"--{head}{'.' if head else ''}no-{tail}"
    spec = _spec_of(hint)
    if value is not None and spec is not None:
        words = [str(word) for word in spec.str_from_instance(value)]
    else:
        words = [str(item) for item in value] if isinstance(value, tuple) else [str(value)]
    return shlex.join([option, *words])


def _value_of(option: str, args: Sequence[str]) -> str | None:
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
        return f"{option}: its value is missing; give {_expected(hint)}"
    shown = " ".join(values)
    spec = _spec_of(hint)
    if spec is not None:
        try:
            spec.instance_from_str(values)
        except ValueError as error:
            return f"{option}: {error}"
    return f"{option}: '{shown}' is not accepted; give {_expected(hint)}"


def _explain_unknown(token: str, args: Sequence[str], known: Mapping[str, Any]) -> str:
    name = token.partition("=")[0]
    if not token.startswith("-"):
        option = _last_option_before(token, args, known)
        if option is None:
            return f"'{token}' follows no option; write for example --epochs 30"
        return f"{option}: '{token}' is one value too many; give {_expected(known[option])}"
    tail = name.lstrip("-")
    close = [option for option in known if option.endswith(f".{tail}")]
    close = close or difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {close[0]}?" if close else "--help shows all options"
    return f"{name}: is not an option; {remedy}"


def _last_option_before(token: str, args: Sequence[str], known: Mapping[str, Any]) -> str | None:
    last = None
    for arg_ in args:
        name, _, value = arg_.partition("=")
        last = name if name in known else last
        if token in (arg_, value):
            break
    return last


def _spec_of(hint: Any) -> PrimitiveConstructorSpec | None:
    """The reader and writer of budgets and grids, where a field has one."""
    parts = [hint, *get_args(hint)] if _is_union(hint) else [hint]
    found = [item for part in parts for item in getattr(part, "__metadata__", ())]
    return next((item for item in found if isinstance(item, PrimitiveConstructorSpec)), None)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _expected(hint: Any) -> str:
    """What an option takes, in words."""
    names = {int: "a whole number", float: "a number", str: "a name or path", bool: "no value"}
    spec = _spec_of(hint)
    if _is_union(hint):
        return " or ".join(_expected(part) for part in get_args(hint) if part is not type(None)) + " or None"
    if spec is not None:
        return f"{spec.metavar}, for example 8/255" if spec.metavar == "N/255" else str(spec.metavar)
    if get_origin(hint) is Annotated:
        return _expected(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return "one of: " + ", ".join(str(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return f"{_expected(get_args(hint)[0])} or several separated by spaces"
    return names.get(hint, str(hint))
