"""Runs as a report sees them: read from their folders as they are, finished, running or crashed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lasat_ray.config.json_io import config_to_json, read_config, read_json
from lasat_ray.errors import UserError
from lasat_ray.evaluation.corruptions import REPORT as CORRUPTIONS
from lasat_ray.evaluation.kept import REPORT
from lasat_ray.evaluation.subject import dataset_label
from lasat_ray.runs.records import records_in

COLORS = ("#2f7ed8", "#e8702a", "#1aa37a", "#d0417e", "#8a5cf0", "#b08900", "#0c9fbf", "#7d8a99")
"""One a group of runs; each stands out from white and from near-black."""
SEPARATE = ("seed",)
"""Settings in which the runs of one group may differ."""
BUDGET, NEAR = "budget_passes", 0.25
"""So may this one, by that share: --compare gives a rival what its run happened to spend, seed by seed."""
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder. ``summary`` and ``evaluation`` are None where they do not exist (yet)."""

    name: str
    path: Path
    config: Record
    manifest: Record
    records: list[Record]
    summary: Record | None
    evaluation: Record | None
    corruptions: Record | None = None

    def of(self, kind: str) -> list[Record]:
        """The records of one kind: round, epoch, probe."""
        return [record for record in self.records if record.get("kind") == kind]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def data(self) -> str:
        """What data set it trained on: as it is spelled, or what arrays of somebody's are, which each run
        keeps in its own folder."""
        spelled = self.config["dataset"]
        own = spelled.startswith("npz:") and Path(spelled[4:]).parent.name == self.path.resolve().name
        known = (self.manifest.get("data") or {}).get("train_sha256")
        return f"npz:{Path(spelled).name}@{known}" if own and known else spelled

    @property
    def status(self) -> str:
        """``finished``, or how far the run came; whether it still runs cannot be seen from here."""
        if self.summary:
            return "finished"
        done = [record["epoch"] for record in self.of("epoch")]
        return f"unfinished: epoch {max(done, default=0)} of {self.config['epochs']}"


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ in their seed, and a little in their budget of passes, alone."""

    label: str
    color: str
    runs: list[Run]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(run.name for run in self.runs)

    @property
    def config(self) -> Record:
        return self.runs[0].config

    def grid(self) -> dict[str, list[float]]:
        """The values that each field of the strategy may take; empty for a fixed strategy."""
        return {} if self.config["strategy"] == "fixed" else self.config["attack"]["grid"]


@dataclass(frozen=True, slots=True)
class Study:
    """All runs of a report. ``nets``: what was computed with a run's net, by the run's name."""

    groups: list[Group]
    nets: dict[str, Record] = field(default_factory=dict)

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]


def read_study(paths: Sequence[Path]) -> Study:
    """Every run named; UserError for a folder that is none, or is named twice."""
    runs: list[Run] = []
    for path in paths:
        if any(run.path.resolve() == path.resolve() for run in runs):
            raise UserError(f"RUN: '{path}' stands twice; name each run once")
        runs.append(read_run(path, taken=[run.name for run in runs]))
    return Study(group_runs(runs))


def read_run(path: Path, taken: Iterable[str] = ()) -> Run:
    """One run; UserError where config.json is missing, or a file is broken. Nothing else has to be there."""
    if not (path / "config.json").is_file():
        raise UserError(f"RUN: '{path}' holds no run (no config.json); name a folder that --out made")
    config = config_to_json(read_config(path / "config.json", complete=True))
    name, n = path.resolve().name, 2
    while name in taken:
        name, n = f"{path.resolve().name}-{n}", n + 1
    return Run(
        name=name,
        path=path,
        config=config,
        manifest=_read(path / "manifest.json") or {},
        records=read_records(path / "metrics.jsonl"),
        summary=_read(path / "summary.json"),
        evaluation=_evaluation(path, config),
        corruptions=_read(path / CORRUPTIONS),
    )


def _evaluation(path: Path, config: Record) -> Record | None:
    """The run's most complete evaluation on its own test images; figures of other images are not its own."""
    found = _read(path / REPORT)
    known = found is None or found.get("dataset") in (None, dataset_label(config["dataset"]))
    return found if known else None


def read_records(path: Path) -> list[Record]:
    """The records of metrics.jsonl; a line that is being written, or was torn, is left out.

    UserError where no line is whole.
    """
    records = list(records_in(path))
    if not records and path.is_file() and b"\n" in path.read_bytes():
        raise UserError(f"{path}: holds no record of ours; restore it from the original run folder")
    return records


def _read(path: Path) -> Record | None:
    """A JSON object, None where there is no such file; UserError where it is damaged."""
    if not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no JSON object; restore it from the original run folder")
    return content


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs of one configuration but for the seed together, in the order they were named."""
    found: dict[str, list[list[Run]]] = {}
    for run in runs:
        config = {name: value for name, value in run.config.items() if name not in (*SEPARATE, BUDGET)}
        config["dataset"] = run.data
        alike = found.setdefault(json.dumps(config, sort_keys=True), [])
        for group in alike:
            if _budgets_are_near(run, group[0]):
                group.append(run)
                break
        else:
            alike.append([run])
    members = [sorted(group, key=lambda run: run.seed) for alike in found.values() for group in alike]
    labels = _labels([group[0].config for group in members])
    return [
        Group(label, COLORS[n % len(COLORS)], group)
        for n, (label, group) in enumerate(zip(labels, members, strict=True))
    ]


def _budgets_are_near(run: Run, other: Run) -> bool:
    one, two = run.config.get(BUDGET, 0), other.config.get(BUDGET, 0)
    return one == two or (run.seed != other.seed and abs(one - two) <= NEAR * min(one, two))


def _labels(configs: Sequence[Record]) -> list[str]:
    """``pgd-at learned``, and what tells groups apart that would be called the same."""
    flat = [flatten(config) for config in configs]
    labels = []
    for config in flat:
        label = f"{config['method']} {config['strategy']}"
        same = [o for o in flat if (o["method"], o["strategy"]) == (config["method"], config["strategy"])]
        told = [
            f"{name.rpartition('.')[2]} {_told(name, value)}"
            for name, value in config.items()
            if name != "recipe" and any(_told(name, o.get(name)) != _told(name, value) for o in same)
        ]
        labels.append(", ".join([label, *told[:3]]))
    return [f"{label} ({n})" if labels.count(label) > 1 else label for n, label in enumerate(labels, 1)]


def _told(name: str, value: Any) -> str:
    """A setting's value in a label: budgets rounded, of a path its last part; others have other disks."""
    if name == BUDGET:
        return f"{value:.0f}"
    if name == "dataset" and value is not None:
        return dataset_label(value)
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)


def by_dataset(groups: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """Groups of one data set together, in their order, each with its name behind a comma where there are
    several: what is drawn on one axis must be comparable."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.runs[0].data, []).append(group)
    return [
        (f", {dataset_label(members[0].config['dataset'])}" if len(found) > 1 else "", members)
        for members in found.values()
    ]


def flatten(config: Record, prefix: str = "") -> Record:
    """``{"reward.alpha": 1.0, ...}`` without the seed."""
    flat: Record = {}
    for name, value in config.items():
        if isinstance(value, dict) and name != "grid":
            flat |= flatten(value, f"{prefix}{name}.")
        elif prefix + name not in SEPARATE:
            flat[prefix + name] = value
    return flat


def net_budgets(study: Study) -> str:
    """The budgets at which nets were asked, ``L2 eps 0.5``; with the group where they differ."""
    found: dict[str, list[str]] = {}
    for group in study.groups:
        for budget in {study.nets[name]["budget"] for name in group.names if name in study.nets}:
            found.setdefault(budget, []).append(group.label)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{budget} ({', '.join(labels)})" for budget, labels in found.items())


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds (n - 1); the latter 0 for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def over_seeds(
    series: Sequence[Sequence[tuple[float, float]]],
) -> tuple[list[float], list[float], list[float], list[float]]:
    """(x, mean, mean - std, mean + std) of several seeds' (x, y), where all of them have a y."""
    tables = [dict(pairs) for pairs in series if pairs]
    if not tables:
        return [], [], [], []
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    found = [mean_and_std([table[x] for table in tables]) for x in shared]
    return shared, [m for m, _ in found], [m - s for m, s in found], [m + s for m, s in found]
