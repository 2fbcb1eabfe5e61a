"""``lasat_ray.sweep``: many runs on Ray Tune, and a table of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from rich.console import Console

from lasat_ray.api.results import FolderResult
from lasat_ray.api.settings import base_config, check_trusted
from lasat_ray.api.words import in_python
from lasat_ray.cli.streams import make_console
from lasat_ray.config import TrainConfig
from lasat_ray.config.changes import changed, flattened, read_value
from lasat_ray.config.hints import expected
from lasat_ray.errors import UsageError, UserError, unknown_name
from lasat_ray.models.given import PREFIX
from lasat_ray.tune.options import RECIPE, Asked, SweepRun, check_run, check_store, fresh_place
from lasat_ray.tune.storage import Store

KINDS = {
    "k": ("sweep_k", "SweepK"),
    "weights": ("sweep_weights", "SweepWeights"),
    "strategy": ("search_strategy", "SearchStrategy"),
}
"""Name -> file of ``lasat_ray.tune``, its settings."""


@in_python
def sweep(
    kind: str,
    config: str | Path | TrainConfig | None = None,
    /,
    *,
    out: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> FolderResult:
    """A sweep on Ray Tune; what ``python -m lasat_ray.tune.sweep_k`` and its like do.

    ``kind``: k (rounds between two updates of the strategy net: ``ks``, ``seeds``), weights (of the reward:
    ``alphas``, ``betas``, ``search``, ``seeds``, ...) or strategy (learned against searched: ``budget``,
    ``contenders``, ...). ``config``: a recipe's name, a file of settings or a TrainConfig. ``settings``:
    those of the sweep, of where it runs (``max_concurrent``, ``num_workers``, ...), and changes to the config
    as ``recipe`` takes them. ``out``: its new folder; None means runs/NAME.

    The result's ``summary`` has a row a contender; ``page`` is results.md in its ``folder``, beside
    results.json, .csv and .png. UsageError or UserError in one line for whatever cannot work, or where a
    trial failed.
    """
    if kind not in KINDS:
        raise unknown_name("kind", str(kind), KINDS)
    command, name = KINDS[kind]
    module = importlib.import_module(f"lasat_ray.tune.{command}")
    own, settings = _taken(getattr(module, name), settings)
    run, settings = _taken(SweepRun, {**settings, **({} if out is None else {"out": str(out)})})
    for option in ("resume", "dry_run", "trust"):
        if getattr(run, option):
            raise UsageError(f"{option}: is the command's alone; python -m lasat_ray.tune.{command}")
    if run.config is not None:
        raise UsageError("config: stands second and without its name; write sweep(kind, config, ...)")
    trained = changed(base_config(config, RECIPE), settings)
    check_trusted(config, trained, False, [path for path, _ in flattened(settings)])
    if trained.model.startswith(PREFIX):
        raise UsageError(f"model: '{trained.model}' cannot be sent to trials; name it as module:function")
    check_run(run, trained)
    store = Store(run.out or fresh_place(command))
    asked = Asked(config=trained, settings=own, run=run, store=store, command=command)
    check_store(asked, type(own)())
    status = module.carry_out(asked, make_console() if progress else Console(quiet=True))
    record = store.read_json("results.json")
    if status or not isinstance(record, Mapping):
        remedy = f"python -m lasat_ray.tune.{command} --resume {store.out} goes on"
        raise UserError(f"sweep: trials failed, {store.out} keeps what was done; {remedy}")
    return FolderResult(
        Path(store.out), Path(store.out) / "results.md", [_row(row) for row in record["rows"]]
    )


def _taken(cls: type, settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Those of ``settings`` that are fields of ``cls``, as one, and the rest."""
    hints = get_type_hints(cls, include_extras=True)
    values = {name: value for name, value in settings.items() if name in hints}
    for name, value in values.items():
        try:
            values[name] = read_value(hints[name], value)
        except ValueError:
            raise UsageError(f"{name}: {value!r} is not accepted; give {expected(hints[name])}") from None
    return cls(**values), {name: value for name, value in settings.items() if name not in hints}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A contender: means over seeds."""
    plain = {name: value[0] if _is_mean(value) else value for name, value in row.items()}
    return {name: value for name, value in plain.items() if name not in ("info", "strategy")}


def _is_mean(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], float)
