"""``--help`` of a command with many options: the everyday ones; ``--help-all`` shows every one."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Annotated, Any, get_args, get_type_hints

from tyro.conf import OmitArgPrefixes, Suppress

from lasat_ray.config.json_io import flag, flags_of

ALL = "--help-all"
FOOTER = f"These are the everyday options; {ALL} shows every one."

TRAINING = (
    *("--recipe", "--dataset", "--model", "--method", "--strategy", "--epochs", "--batch-size", "--seed"),
    *("--update-interval", "--precision", "--budget-passes", "--num-workers", "--device", "--out"),
    *("--resume", "--config", "--compare", "--dry-run", "--list-recipes", "--attack.norm", "--attack.eps"),
    *("--attack.num-steps", "--attack.step-size", "--attack.grid", "--optim.lr", "--evaluation.eps"),
)
"""The everyday options of a training run."""


def shortened(cls: type, everyday: Collection[str], prefix: str = "") -> type:
    """A subclass of the dataclass ``cls`` whose other options tyro hides; ``everyday``: as ``--attack.eps``.

    A subclass, since tyro looks for an option's words in the class that declares it and in its bases.
    """
    hints = get_type_hints(cls, include_extras=True)
    kept = {name: _shown(hint, name, everyday, prefix) for name, hint in hints.items()}
    body = {"__annotations__": kept, "__doc__": cls.__doc__, "__module__": cls.__module__}
    return dataclasses.dataclass(frozen=True, kw_only=True)(type(cls.__name__, (cls,), body))


def as_shortened(cls: type, value: Any) -> Any:
    """``value`` as an instance of ``cls``, which ``shortened`` made of its class."""
    kinds, changed = get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        part = getattr(value, field.name)
        inner = dataclasses.is_dataclass(part)
        changed[field.name] = as_shortened(kinds[field.name], part) if inner else part
    return cls(**changed)


def _shown(hint: Any, name: str, everyday: Collection[str], prefix: str) -> Any:
    """The type of a field, hidden where nothing of it is of every day."""
    extras = getattr(hint, "__metadata__", ())
    kind = get_args(hint)[0] if extras else hint
    if not dataclasses.is_dataclass(kind):
        return hint if flag(prefix + name) in everyday else Annotated[hint, Suppress]
    inner = prefix if _unnamed(extras) else f"{prefix}{name}."
    new: Any = shortened(kind, everyday, inner)  # type: ignore[arg-type]
    hidden = () if set(flags_of(kind, inner)) & set(everyday) else (Suppress,)  # type: ignore[arg-type]
    return Annotated[(new, *extras, *hidden)] if (*extras, *hidden) else new


def _unnamed(extras: tuple[Any, ...]) -> bool:
    """Whether a group's name is left out of its options."""
    return OmitArgPrefixes in extras or any(getattr(extra, "name", None) == "" for extra in extras)
