"""The methods by name. A new one is a file here and a line in this dict; code outside the project
is named ``module:METHOD``."""

from __future__ import annotations

from lasat_ray.errors import UsageError, unknown_name
from lasat_ray.methods import (
    adr,
    atas,
    cat,
    clean,
    dart,
    fat,
    free,
    gairat,
    hat,
    hydra,
    ikl,
    kd_swa,
    lbgat,
    ltd,
    mart,
    pgd_at,
    rebat,
    sat,
    score,
    te,
    trades,
)
from lasat_ray.methods.base import AttackContext, Method, MethodInputs, MethodMemory, known_method
from lasat_ray.methods.outside import held
from lasat_ray.plugins import Plugin, load_plugin

METHODS: dict[str, Method] = {
    "clean": clean.METHOD,
    "pgd-at": pgd_at.METHOD,
    "madry": pgd_at.METHOD,
    "trades": trades.METHOD,
    "gowal": trades.METHOD,
    "rebuffi": trades.METHOD,
    "mart": mart.METHOD,
    "fat": fat.METHOD,
    "fat-trades": fat.FAT_TRADES,
    "fat-mart": fat.FAT_MART,
    "gairat": gairat.METHOD,
    "at-awp": known_method("at-awp", pgd_at.loss),
    "trades-awp": known_method("trades-awp", trades.loss),
    "lbgat": lbgat.METHOD,
    "dart": dart.METHOD,
    "sat": sat.METHOD,
    "cat": cat.METHOD,
    "score": score.METHOD,
    "hat": hat.METHOD,
    "ltd": ltd.METHOD,
    "hydra": hydra.METHOD,
    "ikl": ikl.METHOD,
    "kd-swa": kd_swa.METHOD,
    "te": te.METHOD,
    "free": free.METHOD,
    "atas-steps": atas.METHOD,
    "adr": adr.METHOD,
    "adr-trades": adr.ADR_TRADES,
    "rebat": rebat.METHOD,
}
"""Name on the command line -> method; its file names the paper."""


def find_method(name: str) -> Method:
    """One of ours or an outside ``module:METHOD``; UsageError in one line otherwise."""
    if name in METHODS:
        return METHODS[name]
    if ":" not in name:
        raise unknown_name("--method", name, METHODS)
    method = load_plugin("method", name)
    if not isinstance(method, Method):
        raise UsageError(f"--method: '{name}' is no Method; see lasat_ray/methods/base.py")
    return held(method, Plugin("--method", name))


__all__ = ["METHODS", "AttackContext", "Method", "MethodInputs", "MethodMemory", "find_method"]
