"""A case of bad input, and the commands by short names."""

from __future__ import annotations

from dataclasses import dataclass

from tests.robustness.cases.spoil import Edit


@dataclass(frozen=True)
class Bad:
    """``python -m COMMAND``; ``told``: what the line has to say; ``given``: words for ``edit``, which
    spoils a copy of the world first."""

    command: str
    told: str
    status: int = 2
    given: str = ""
    edit: Edit | None = None


TRAIN, EVALUATE, REPORT = "lasat_ray.train", "lasat_ray.evaluate", "lasat_ray.report"
PREDICT = "lasat_ray.predict"
EXPLAIN, EXPORT, BOARD = "lasat_ray.explain", "lasat_ray.export", "lasat_ray.leaderboard"
SWEEP_K, WEIGHTS, SEARCH = "tuning.sweep_k", "tuning.sweep_weights", "tuning.search_strategy"
NPZ = f"{TRAIN} --dataset npz:x.npz"
PQ = f"{TRAIN} --dataset parquet:pq"
PICS = f"{TRAIN} --dataset imagefolder:pics"
RESUME = f"{TRAIN} --resume run"
