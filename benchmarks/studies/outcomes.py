"""What tables and pictures are made of: outcomes of trainings, by row and seed, and how they differ."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Outcome = dict[str, Any]
_PLACED = ("parquet:", "npz:")  # data sets by path


def settings_key(trial: dict[str, Any], judge: dict[str, Any]) -> str:
    """What a trial computes, as 16 hex digits; a data set counts by its name, wherever it lies."""
    flags = [Path(flag).name if flag.startswith(_PLACED) else flag for flag in trial["flags"]]
    told = json.dumps([{**trial, "flags": flags}, judge], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def without_place(dataset: str) -> str:
    """``parquet:/some/folder/cifar10`` -> ``parquet:cifar10``: a record does not tell where its data lay."""
    kind, _, path = dataset.partition(":")
    return f"{kind}:{Path(path).name}" if path else dataset


def slim(outcome: Outcome) -> Outcome:
    """What a committed record keeps of a run; one that came from a record is that already."""
    if "key" in outcome:
        return outcome
    kept = ("evaluation", "passes_per_image", "epochs")
    flags = [without_place(f) if f.startswith(_PLACED) else f for f in outcome["trial"]["flags"]]
    summary = {k: outcome["summary"][k] for k in ("rounds", "train_seconds", "n_train", "parameters")}
    key = settings_key(outcome["trial"], outcome["judge"])
    trial = {**outcome["trial"], "flags": flags}
    return {"key": key, "trial": trial, **{name: outcome[name] for name in kept}, "summary": summary}


def by_label(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes of each row, seeds in order."""
    rows: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        rows[outcome["trial"]["label"]].append(outcome)
    return {label: sorted(found, key=lambda o: o["trial"]["seed"]) for label, found in rows.items()}


def percent(outcomes: Sequence[Outcome], attack: str) -> list[float]:
    """One accuracy in percent of each seed."""
    return [100 * outcome["evaluation"][attack]["accuracy"] for outcome in outcomes]


def mean_std(values: Sequence[float]) -> str:
    """``66.9 +- 1.2``; one value stands alone."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def paired(ours: Sequence[Outcome], theirs: Sequence[Outcome], attack: str) -> dict[str, float]:
    """Mean difference over the seeds both have, in percent points, with its 95 % interval (Student)."""
    from scipy.stats import t

    mine = {o["trial"]["seed"]: o for o in ours}
    others = {o["trial"]["seed"]: o for o in theirs}
    seeds = sorted(set(mine) & set(others))
    gaps = [percent([mine[s]], attack)[0] - percent([others[s]], attack)[0] for s in seeds]
    mean = statistics.mean(gaps)
    half = math.nan
    if len(gaps) > 1:
        half = float(t.ppf(0.975, len(gaps) - 1)) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return {"n": len(gaps), "difference": mean, "low": mean - half, "high": mean + half}
