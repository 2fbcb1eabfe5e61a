"""A config with some settings changed, as a program or a file gives them: by dotted names or in groups.

``{"optim.lr": 0.05}`` and ``{"optim": {"lr": 0.05}}`` say the same. Budgets may be written ``"8/255"`` and
grids ``"eps=3..15/255 num_steps=3..14"``, as on the command line.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lasat_ray.config import TrainConfig
from lasat_ray.config.hints import expected, is_union, spec_of
from lasat_ray.config.nearest import did_you_mean
from lasat_ray.config.units import NAMED_FIELDS, parse_grid, parse_values
from lasat_ray.errors import UsageError

ALL_SHOWN = "python -m lasat_ray.train --help-all shows all"


def changed(config: TrainConfig, changes: Mapping[str, Any], *, source: str = "") -> TrainConfig:
    """``config`` with ``changes``; UsageError for a name that is no setting, with the nearest that is, and
    for a value of another type. Ranges are left to ``validation.check``. ``source``: the file, in messages.
    """
    for path, value in flattened(changes, source):
        config = _replaced(config, path, value, source)
    return config


def flattened(changes: Mapping[str, Any], source: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path of a setting, its value) of every change; UsageError for an unknown name."""
    hints = settings()
    groups = {path.rpartition(".")[0] for path in hints} - {""}
    yield from _flattened(changes, "", hints, groups, source)


def _flattened(
    changes: Mapping[str, Any], prefix: str, hints: Mapping[str, Any], groups: set[str], source: str
) -> Iterator[tuple[str, Any]]:
    for name, value in changes.items():
        path = f"{prefix}{name}"
        if path in groups:
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            if not isinstance(value, Mapping):
                raise UsageError(
                    f"{_at(source)}{path}: {value!r} is a single value and {path} a group of settings; give "
                    f"{path}={{NAME: VALUE}}"
                )
            yield from _flattened(value, f"{path}.", hints, groups, source)
        elif path in hints:
            yield path, value
        else:
            raise UsageError(f"{_at(source)}{path}: is not a setting; {did_you_mean(path, hints, ALL_SHOWN)}")


@functools.cache
def settings() -> Mapping[str, Any]:
    """Dotted path -> type of every setting."""
    return MappingProxyType(_types(TrainConfig, ""))


def _types(cls: type, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            found |= _types(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            found[prefix + name] = hint
    return found


def _replaced(config: TrainConfig, path: str, value: Any, source: str) -> TrainConfig:
    hint = settings()[path]
    try:
        value = read_value(hint, value)
    except ValueError as error:
        told = str(error) or f"{value!r} is not accepted; give {_taken(hint)}"
        raise UsageError(f"{_at(source)}{path}: {told}") from None
    group, _, name = path.rpartition(".")
    if group:
        value = dataclasses.replace(getattr(config, group), **{name: value})
    return dataclasses.replace(config, **{group or name: value})


def read_value(hint: Any, value: Any) -> Any:
    """``value`` as a setting of type ``hint`` holds it; ValueError, with words or without, where it cannot
    be. A number of numpy's counts as Python's; nothing else is bent."""
    if isinstance(value, numbers.Number) and hasattr(value, "item"):
        value = value.item()
    if is_union(hint):
        if value is None or (isinstance(value, str) and value in ("none", "None")):
            return None
        return read_value(next(part for part in get_args(hint) if part is not type(None)), value)
    spec = spec_of(hint)
    if spec is not None and spec.metavar != "N/255":
        return _grid(value)
    if spec is not None and isinstance(value, str):
        return spec.instance_from_str([value])
    return _plain(get_args(hint)[0] if hasattr(hint, "__metadata__") else hint, value)


def _plain(hint: Any, value: Any) -> Any:
    if get_origin(hint) is Literal and isinstance(value, str) and value in get_args(hint):
        return value
    if get_origin(hint) is tuple:
        items = value if isinstance(value, (list, tuple)) else (value,)
        return tuple(read_value(get_args(hint)[0], item) for item in items)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint is str and isinstance(value, PurePath):
        return str(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ValueError


def _grid(value: Any) -> dict[str, tuple[float, ...]]:
    """``"eps=3..15/255"``, or a mapping whose values are written so or listed."""
    if isinstance(value, str):
        return parse_grid(value)
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError
    return {name: _grid_values(name, values) for name, values in value.items()}


def _grid_values(name: str, values: Any) -> tuple[float, ...]:
    if isinstance(values, str):
        return parse_grid(f"{name}={values.replace(' ', '')}")[name]
    items = values if isinstance(values, (list, tuple)) else (values,)
    return tuple(number for item in items for number in _grid_item(name, item))


def _grid_item(name: str, item: Any) -> tuple[float, ...]:
    if isinstance(item, str):
        return parse_grid(f"{name}={item}")[name] if name in NAMED_FIELDS else parse_values(item)
    if isinstance(item, numbers.Real) and not isinstance(item, bool):
        return (float(item),)
    raise ValueError


def _taken(hint: Any) -> str:
    if hint is bool:
        return "True or False"
    return expected(hint).replace("several separated by spaces", "a list of them")


def _at(source: str) -> str:
    return f"{source}: " if source else ""
