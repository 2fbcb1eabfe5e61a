"""The methods by name. A new one is a file here and a line in this dict."""

from lasat_ray.methods import clean, pgd_at, trades
from lasat_ray.methods.base import Method

METHODS: dict[str, Method] = {
    "clean": clean.METHOD,
    "pgd-at": pgd_at.METHOD,
    "trades": trades.METHOD,
}

__all__ = ["METHODS", "Method"]
