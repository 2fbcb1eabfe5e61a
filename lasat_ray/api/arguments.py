"""What arguments of several functions of the API mean, read and checked in one place."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lasat_ray.config.changes import read_value
from lasat_ray.config.fields import Budget
from lasat_ray.errors import UsageError


def budget(name: str, value: float | str | None) -> float | None:
    """A length in [0,1] pixels, a number or such as "8/255"; UsageError for anything else."""
    try:
        return None if value is None else read_value(Budget, value)
    except ValueError as error:
        told = str(error) or f"{value!r} is no budget; give a number, or 8/255 as text"
        raise UsageError(f"{name}: {told}") from None


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """``value`` where it is allowed, else UsageError."""
    if value not in allowed:
        raise UsageError(
            f"{name}: '{value}' is unknown; choose one of: {', '.join(str(a) for a in allowed if a)}"
        )
    return value


def device_of(net: Any) -> torch.device | None:
    """Where a module lies; it is asked there. None for what is no module or has no weights."""
    parameter = next(net.parameters(), None) if isinstance(net, nn.Module) else None
    return None if parameter is None else parameter.device
