"""The public Python API: what the commands do, as functions (docs/api.md).

Imported at first use, so that ``import lasat_ray`` needs neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import Any

from lasat_ray import API

__all__ = [*sorted(API)]


def __getattr__(name: str) -> Any:
    if name in API:
        return getattr(importlib.import_module(API[name]), name)
    raise AttributeError(f"module 'lasat_ray.api' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *API})
