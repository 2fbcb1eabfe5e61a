"""A config as JSON and back, exactly; and the walk over its fields that other files share.

``config.json`` of a run folder holds every field, so that a run can be repeated or continued
without the recipe it came from. A file with a field too many or too few is refused, not guessed.
"""

from __future__ import annotations

import json
import textwrap
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lasat_ray.config import TrainConfig
from lasat_ray.config.files import check_regular
from lasat_ray.errors import UserError

T = TypeVar("T")
MAX_JSON_BYTES = 16 * 2**20
"""Largest JSON file that is read from a run folder; ours have some kilobytes."""


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a config as (dotted path, value): ``("reward.alpha", 1.0)``."""
    for field in fields(tree):
        value = getattr(tree, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def flag(path: str) -> str:
    """The command-line spelling of a path: ``reward.l1_weight`` -> ``--reward.l1-weight``."""
    return "--" + path.replace("_", "-")


def flags_of(cls: type, prefix: str = "") -> dict[str, Any]:
    """Option -> type for every setting of a dataclass tree: ``{"--reward.alpha": float, ...}``."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if is_dataclass(hint):
            found |= flags_of(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            found[flag(prefix + name)] = hint
    return found


def config_to_json(config: TrainConfig) -> dict[str, Any]:
    """The config as JSON types; ``json`` writes floats so that they read back exactly."""
    return {field.name: _to_json(getattr(config, field.name)) for field in fields(config)}


BEFORE: dict[str, Any] = {
    "budget_passes": 0.0,
    "budget_minutes": 0.0,
    "speed.tf32": "convolutions",
    "stop_on": "none",
    "stop_patience": 5,
    "new_head": False,
    "data.image_column": None,
    "data.label_column": None,
    "data.background": "white",
    "data.image_size": None,
    "data.fit": "stretch",
    "data.mean": [0.0],
    "data.std": [1.0],
    "loss.ikl_alpha": 20.0,
    "loss.ikl_temperature": 4.0,
    "robust_teacher": None,
    "optim.swa_start": None,
    "optim.optimizer": "sgd",
    "optim.beta2": 0.999,
    "optim.freeze": [],
    "optim.lr_factors": [],
    "optim.sync_batch_norm": False,
    "optim.restart_epochs": 10.0,
    "optim.restart_factor": 2.0,
    "loss.kd_plain": 0.1,
    "loss.kd_robust": 0.6,
    "loss.kd_temperature": 2.0,
    "loss.te_weight": 300.0,
    "loss.te_decay": 0.9,
    "loss.te_epochs": None,
    "loss.atas_c": 0.01,
    "loss.atas_decay": 0.5,
    "loss.atas_range": [0.25, 0.875],
    "loss.atas_warmup": None,
    "loss.adr_decay": 0.995,
    "loss.adr_temperature": [2.5, 2.0],
    "loss.adr_trust": [0.7, 0.95],
    "loss.rebat_weight": 1.0,
    "loss.rebat_decay": 0.999,
    "loss.rebat_start": None,
    "attack.momentum": 0.0,
    "attack.direction": "sign",
    "attack.restarts": 1,
    "data.mixup": 0.0,
    "data.policy": "none",
    "data.crop_shift": 0,
    "data.erasing": 0.0,
    "data.erasing_area": 0.33,
    "reward.objective": "total",
    "reward.cost_target": 0.0,
    "reward.outcome": "batch",
    "reward.outcome_images": 32,
    "reward.outcome_fraction": 0.1,
    "policy.initial_price": 0.0,
}
"""What every run did before the setting existed: a file without it means this, whatever the default is."""


def config_from_json(data: Any, source: str = "config.json") -> TrainConfig:
    """The inverse of config_to_json; UserError naming ``source`` and the field otherwise. Settings that the
    file's older version did not have take the meaning that they had then (``BEFORE``)."""
    return _read_dataclass(TrainConfig, with_old_meaning(data), source, "")


def with_old_meaning(data: Any) -> Any:
    """``data`` with the settings of ``BEFORE`` that groups of it lack."""
    if not isinstance(data, dict):
        return data
    filled = dict(data)
    for path, value in BEFORE.items():
        group, _, name = path.rpartition(".")
        if not group:
            filled.setdefault(name, value)
        elif isinstance(filled.get(group), dict):
            filled[group] = {name: value, **filled[group]}
    return filled


def write_config(config: TrainConfig, path: Path) -> None:
    """Write a configuration to ``path`` as JSON that ``read_config`` reads."""
    path.write_text(json.dumps(config_to_json(config), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_config(path: Path, *, complete: bool = False) -> TrainConfig:
    """The config in a file; UserError naming the file when it is absent or is not one of ours.

    ``complete``: settings that the file's older version did not have take their defaults; enough to
    evaluate or show a run, not to continue it.
    """
    data = read_json(path)
    if complete and isinstance(data, dict):
        data = _completed(data, config_to_json(TrainConfig()))
    return config_from_json(data, str(path))


def read_json(path: Path) -> Any:
    """The content of a JSON file of a run folder; UserError naming the file where there is none."""
    remedy = "restore it from the original run folder"
    check_regular(path)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise UserError(f"{path}: has more than {MAX_JSON_BYTES:,} bytes; {remedy}")
        return json.loads(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a run folder of ours") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: is not JSON ({error}); {remedy}") from error


def _completed(data: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """``data`` with what it lacks; a grid is data, not a group of settings."""
    filled = {**defaults, **data}
    groups = [name for name, value in defaults.items() if isinstance(value, dict) and name != "grid"]
    for name in groups:
        if isinstance(filled[name], dict):
            filled[name] = _completed(filled[name], defaults[name])
    return filled


def _to_json(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return value


def _read_dataclass(cls: type[T], data: Any, source: str, prefix: str) -> T:
    if not isinstance(data, dict):
        what = prefix.rstrip(".") or "the file"
        raise UserError(f"{source}: {what} is not a JSON object; restore it from the original run folder")
    hints = get_type_hints(cls)
    if unknown := [name for name in data if name not in hints]:
        raise UserError(f"{source}: field {prefix}{unknown[0]} is unknown; this version has no such setting")
    if missing := [name for name in hints if name not in data]:
        raise UserError(f"{source}: field {prefix}{missing[0]} is missing; add it to the file")
    values = {name: _read(hint, data[name], source, prefix + name) for name, hint in hints.items()}
    return cls(**values)


def _read(hint: Any, value: Any, source: str, path: str) -> Any:
    if is_dataclass(hint):
        return _read_dataclass(hint, value, source, path + ".")  # type: ignore[arg-type]
    try:
        return _convert(hint, value)
    except (TypeError, OverflowError) as error:
        wanted = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
        shown = textwrap.shorten(json.dumps(value), 80)
        raise UserError(f"{source}: field {path} is {shown}; it takes {wanted}") from error


def _convert(hint: Any, value: Any) -> Any:
    """``value`` as ``hint`` wants it; TypeError when it cannot be. JSON has no tuples and may
    write 1.0 as 1; nothing else is bent."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal and value in args and isinstance(value, str):
        return value
    if origin in (Union, types.UnionType):
        chosen = type(None) if value is None else next(arg for arg in args if arg is not type(None))
        if chosen in args:
            return None if value is None else _convert(chosen, value)
    if origin is tuple and isinstance(value, list) and (args[-1] is ... or len(args) == len(value)):
        return tuple(_convert(args[0], item) for item in value)
    if origin is dict and isinstance(value, dict):
        return {_convert(args[0], key): _convert(args[1], item) for key, item in value.items()}
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise TypeError(f"{value!r} is not {hint}")
