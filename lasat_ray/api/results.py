"""What the functions of the API give back: figures, where they lie, and how a notebook shows them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from lasat_ray.config import TrainConfig
from lasat_ray.config.units import format_budget, format_threat
from lasat_ray.runs.load import load_model
from lasat_ray.runs.records import records_in


def html_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]], below: str = "") -> str:
    """A table as a notebook shows it; every word is escaped."""
    head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    caption = f"<caption>{html.escape(title)}</caption>"
    foot = f"<p>{html.escape(below)}</p>" if below else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}"


def percent(accuracy: float) -> str:
    """An accuracy in [0,1] as tables show it."""
    return f"{100 * accuracy:.1f} %"


@dataclass(frozen=True, eq=False)
class TrainResult:
    """A finished training run.

    ``summary``: the figures of summary.json, accuracies in [0,1] on the test set; ``folder``: the run folder;
    ``config``: every setting; ``notes``: what was done to the data that was given.
    """

    folder: Path
    summary: dict[str, Any]
    config: TrainConfig
    notes: tuple[str, ...] = ()

    @cached_property
    def net(self) -> nn.Module:
        """The net that was best on validation, as ``load_model`` gives it: images [B,C,H,W] in [0,1] ->
        logits [B,N]."""
        return load_model(self.folder, trust=True)

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The records of metrics.jsonl in order; of one ``kind`` (round, epoch, probe, final, ...) or all."""
        found = records_in(self.folder / "metrics.jsonl")
        return [record for record in found if kind is None or record.get("kind") == kind]

    @property
    def accuracies(self) -> dict[str, float]:
        """``clean_acc`` and every ``robust_acc_...``, in [0,1]."""
        return {name: value for name, value in self.summary.items() if _is_accuracy(name)}

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {percent(value)}" for name, value in self.accuracies.items())
        return f"TrainResult({figures}, folder='{self.folder}')"

    def _repr_html_(self) -> str:
        threat = format_threat(self.summary["norm"], self.summary["eps"])
        title = f"{self.config.method} {self.config.strategy}: {self.summary['n_test']} test images, {threat}"
        rows = [(name, percent(value)) for name, value in self.accuracies.items()]
        return html_table(title, ("accuracy", ""), rows, below=f"Run folder: {self.folder}")


def _is_accuracy(name: str) -> bool:
    return name == "clean_acc" or name.startswith("robust_acc_")


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What an evaluation found. ``report``: everything, as in evaluation.json; ``folder``: where that lies,
    None where nothing was written."""

    report: dict[str, Any]
    folder: Path | None = None

    @property
    def accuracy(self) -> dict[str, float]:
        """Attack -> accuracy in [0,1]."""
        return {name: entry["accuracy"] for name, entry in self.report["attacks"].items()}

    @property
    def summary(self) -> dict[str, Any]:
        """The accuracies by attack and in the worst case, how many images they rest on, and whether the
        sanity check trusts them (``verdict`` passed or unreliable, with ``reasons``)."""
        sanity = self.report["sanity"]
        return {
            **self.accuracy,
            "worst_case": self.report["worst_case"]["accuracy"],
            "n": self.report["n"],
            "verdict": sanity["verdict"],
            "reasons": list(sanity["reasons"]),
        }

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {percent(value)}" for name, value in self.accuracy.items())
        return f"EvaluationResult({figures}, n={self.report['n']}, {self.report['sanity']['verdict']})"

    def _repr_html_(self) -> str:
        rows = [
            (name, f"{format_budget(entry['eps'])} {entry['norm']}" if entry["eps"] else "",
             percent(entry["accuracy"]), " .. ".join(percent(end) for end in entry["interval"]))
            for name, entry in self.report["attacks"].items()
        ]  # fmt: skip
        worst = self.report["worst_case"]
        rows.append(("worst case", "", percent(worst["accuracy"]), ""))
        sanity = self.report["sanity"]
        below = "; ".join([f"sanity check: {sanity['verdict']}", *sanity["reasons"]])
        heads = ("attack", "eps", "accuracy", "95 % interval")
        return html_table(f"{self.report['n']} test images", heads, rows, below)


@dataclass(frozen=True, eq=False)
class FolderResult:
    """What a report or a sweep wrote. ``folder``: where; ``page``: the file to open; ``summary``: a row a
    run or contender."""

    folder: Path
    page: Path
    summary: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.summary)} rows, page='{self.page}')"

    def _repr_html_(self) -> str:
        heads = list(dict.fromkeys(name for row in self.summary for name in row))
        rows = [[_shown(name, row.get(name, "")) for name in heads] for row in self.summary]
        return html_table("", heads, rows, below=f"Open {self.page}")


def _shown(name: str, value: Any) -> str:
    if isinstance(value, float):
        return percent(value) if _is_accuracy(name) else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return "" if value is None else str(value)
