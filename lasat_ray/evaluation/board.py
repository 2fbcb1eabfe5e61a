"""One row of a leaderboard from one evaluation, and which evaluations of a folder get one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lasat_ray.config.files import check_regular
from lasat_ray.config.units import format_budget
from lasat_ray.errors import UserError, described
from lasat_ray.evaluation.kept import REPORT, Kept, owner_of, read_one, that_counts, threat_of

STANDARD = "linf 8/255"
"""The budget of every published row; another one is another race."""


@dataclass(frozen=True, slots=True)
class Row:
    """Accuracies in [0,1]; ``source``: measured or reported; ``published_rank``: in its leaderboard."""

    dataset: str
    method: str
    clean: float | None
    aa: float | None
    architecture: str
    extra_data: bool | None
    source: str
    worst: float | None = None
    """Share of images that withstood every attack of the evaluation."""
    worst_interval: tuple[float, float] | None = None
    unreliable: bool = False
    n: int | None = None
    budget: str = STANDARD
    published_rank: int | None = None
    venue: str = ""


def find_reports(paths: Sequence[Path]) -> list[Path]:
    """Every evaluation.json named, and of those below a named folder the ones that count; UserError for a
    path with none."""
    found: list[Path] = []
    for path in paths:
        files = [path] if path.exists() and not path.is_dir() else sorted(path.rglob("evaluation*.json"))
        if not files:
            raise UserError(f"{path}: holds no evaluation.json; run python -m lasat_ray.evaluate first")
        found += files if path in files else _that_count(files)
    return list(dict.fromkeys(found))


def _that_count(files: Sequence[Path]) -> list[Path]:
    """Of the evaluations that a net keeps side by side one for each checkpoint, data set and budget: the most
    complete. Without any attack only where there is no other; files with names of their own stay."""
    nets: dict[tuple[str, ...], dict[str, list[Kept]]] = {}
    found: list[Path] = []
    for file in files:
        one = read_one(file) if file.name == REPORT else None
        if one is None:
            found.append(file)
            continue
        net = tuple(str(one.report.get(name)) for name in ("checkpoint", "dataset"))
        budget = _budget(threat_of(one.report)) if threat_of(one.report)["eps"] else ""
        nets.setdefault((str(owner_of(file)), *net), {}).setdefault(budget, []).append(one)
    for budgets in nets.values():
        kept = [some for budget, some in budgets.items() if budget or len(budgets) == 1]
        found += [best.path for some in kept if (best := that_counts(some))]
    return sorted(found)


def measured_row(file: Path) -> Row:
    """The row of one evaluation; AA is missing where AutoAttack was not run."""
    check_regular(file)
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        attacks = report["attacks"]
        accuracy = {name: _share(entry["accuracy"]) for name, entry in attacks.items()}
        worst, interval = _worst(report.get("worst_case"))
        return Row(
            dataset=str(report.get("dataset") or "unnamed"),
            method=_method(report) or owner_of(file).name,
            clean=accuracy.get("clean"),
            aa=accuracy.get("aa"),
            architecture=str(report.get("architecture") or ""),
            extra_data=report.get("extra_data"),
            source="measured",
            worst=worst,
            worst_interval=interval,
            unreliable=report["sanity"]["verdict"] != "passed",
            n=report["n"],
            budget=_budget(threat_of(report)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = described(error)
        raise UserError(f"{file}: not an evaluation ({told}); make it with lasat_ray.evaluate") from error


def check_classes(files: Sequence[Path]) -> None:
    """UserError where two evaluations call their data sets alike and tell other classes apart."""
    known: dict[str, tuple[Path, list[str]]] = {}
    for file in files:
        report = json.loads(file.read_text(encoding="utf-8"))
        names, dataset = report.get("class_names"), str(report.get("dataset"))
        if not isinstance(names, list) or not names:
            continue  # of a version that kept none
        other, theirs = known.setdefault(dataset, (file, names))
        for name in [*names, *theirs]:
            if name not in theirs or name not in names:
                owner, lacking = (file, other) if name in names else (other, file)
                raise UserError(
                    f"{owner}: class '{name}' of {dataset} is no class of {lacking}; these are two data "
                    "sets, leave one out"
                )


def _method(report: dict[str, Any]) -> str:
    """The method, or the net's name; with the checkpoint where it is not the best one."""
    name = str(report.get("method") or report.get("model") or "")
    return f"{name} (last)" if report.get("checkpoint") == "last.safetensors" else name


def _worst(entry: dict[str, Any] | None) -> tuple[float | None, tuple[float, float] | None]:
    """Accuracy and interval over all attacks; nothing is made up for evaluations of earlier versions."""
    if entry is None:
        return None, None
    low, high = entry["interval"]
    return _share(entry["accuracy"]), (_share(low), _share(high))


def _share(value: Any) -> float:
    """An accuracy; ValueError for anything outside [0,1]."""
    if not (isinstance(value, (int, float)) and 0 <= value <= 1):
        raise ValueError(f"accuracy {value!r} is not in [0,1]")
    return float(value)


def _budget(entry: dict[str, Any]) -> str:
    """``linf 8/255``; some publications round that to 0.031."""
    if not entry["eps"]:
        return STANDARD
    eps = 8 / 255 if entry["norm"] == "linf" and entry["eps"] == 0.031 else entry["eps"]
    return f"{entry['norm']} {format_budget(eps)}"
