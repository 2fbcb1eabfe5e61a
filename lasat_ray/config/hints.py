"""What a setting takes, read from its type: in words for messages, and a budget's or grid's own reader."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from tyro.constructors import PrimitiveConstructorSpec


def spec_of(hint: Any) -> PrimitiveConstructorSpec | None:
    """The reader and writer of budgets and grids, where a field has one."""
    parts = [hint, *get_args(hint)] if is_union(hint) else [hint]
    found = [item for part in parts for item in getattr(part, "__metadata__", ())]
    return next((item for item in found if isinstance(item, PrimitiveConstructorSpec)), None)


def is_union(hint: Any) -> bool:
    """Whether a type is one of several, as ``float | None`` is."""
    return get_origin(hint) in (Union, types.UnionType)


def expected(hint: Any) -> str:
    """What an option takes, in words."""
    names = {int: "a whole number", float: "a number", str: "a name or path", bool: "no value"}
    spec = spec_of(hint)
    if is_union(hint):
        return " or ".join(expected(part) for part in get_args(hint) if part is not type(None)) + " or None"
    if spec is not None:
        return f"{spec.metavar}, for example 8/255" if spec.metavar == "N/255" else f"{spec.metavar}, quoted"
    if get_origin(hint) is Annotated:
        return expected(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return "one of: " + ", ".join(str(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return f"{expected(get_args(hint)[0])} or several separated by spaces"
    return names.get(hint, str(hint))
