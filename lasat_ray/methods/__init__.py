"""The methods by name. A new one is a file here and a line in this dict; code outside the project
is named ``module:METHOD``."""

from __future__ import annotations

from lasat_ray.errors import UsageError, unknown_name
from lasat_ray.methods import clean, pgd_at, trades
from lasat_ray.methods.base import Method
from lasat_ray.plugins import load_plugin

METHODS: dict[str, Method] = {
    "clean": clean.METHOD,
    "pgd-at": pgd_at.METHOD,
    "trades": trades.METHOD,
}


def find_method(name: str) -> Method:
    """One of ours or an outside ``module:METHOD``; UsageError in one line otherwise."""
    if name in METHODS:
        return METHODS[name]
    if ":" not in name:
        raise unknown_name("--method", name, METHODS)
    method = load_plugin("method", name)
    if not isinstance(method, Method):
        raise UsageError(f"--method: '{name}' is no Method; see lasat_ray/methods/base.py")
    return method


__all__ = ["METHODS", "Method", "find_method"]
