"""What a person sees of an evaluation: a bar per attack with the time left, and a table at the end."""

from __future__ import annotations

import time
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from lasat_ray.config.units import format_budget, format_threat
from lasat_ray.evaluation.kept import threat_of
from lasat_ray.evaluation.part import Part
from lasat_ray.evaluation.spec import Job, Suite

SILENCE = 15.0


class EvaluationDisplay:
    """Hears every finished chunk. On a terminal: bars; elsewhere: a line when an attack is done, or
    when none was told for SILENCE seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._left: dict[str, int] = {}
        self._robust: dict[str, int] = {}
        self._began, self._done, self._total = time.perf_counter(), 0, 0
        self._told = self._began
        self._chunks: dict[str, int] = {}

    def __enter__(self) -> EvaluationDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def announce(self, suite: Suite) -> EvaluationDisplay:
        """The suite is about to start."""
        self._began, self._n = time.perf_counter(), suite.n
        for job in suite.jobs():
            self._left[_label(job)] = self._left.get(_label(job), 0) + 1
        self._chunks = dict(self._left)
        self._total = sum(self._left.values())
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
            )
            self._progress = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
            self._progress.start()
            self._tasks = {
                name: self._progress.add_task(name, total=left) for name, left in self._left.items()
            }
        return self

    def __call__(self, job: Job, part: Part, known: bool) -> None:
        """One more chunk of an attack is done; ``known``: by an earlier process."""
        name = _label(job)
        self._left[name] -= 1
        self._robust[name] = self._robust.get(name, 0) + int(part.robust.sum())
        if known:
            self._total -= 1  # time left is judged by the chunks of this process alone
        else:
            self._done += 1
        if self._progress:
            self._progress.advance(self._tasks[name])
        elif self._left[name] == 0 or time.perf_counter() - self._told > SILENCE:
            self._told = time.perf_counter()
            self._console.print(self._line(name), highlight=False, soft_wrap=True)

    def _line(self, name: str) -> str:
        chunks, left = self._chunks[name], self._total - self._done
        told = [f"{chunks - self._left[name]} of {chunks} chunks"]
        if not self._left[name] and name != SANITY:
            told.append(f"accuracy {100 * self._robust[name] / self._n:.2f} %")
        if left:
            seconds = (time.perf_counter() - self._began) / max(self._done, 1) * left
            told.append(f"{left} pieces of work left, about {seconds:.0f} s")
        return f"{name}: {', '.join(told)}"


SANITY = "sanity check"


def _label(job: Job) -> str:
    return SANITY if job.spec.sanity else job.spec.name


def attack_table(report: dict[str, Any]) -> Table:
    """Return the table of an evaluation: a row per attack, its accuracy with 95 % interval and its cost."""
    images = report.get("images", {}).get("told", f"{report['n']} test images")
    title = f"{report.get('architecture', 'net')}, {images} of {report.get('dataset', 'a set')}"
    table = Table(title=title, box=SIMPLE, caption="fwd, bwd: passes an image; s: seconds of all workers")
    for name in ("attack", "eps", "accuracy", "95 % interval", "fwd", "bwd", "s"):
        named = name == "attack"  # a module:function of somebody's may be long: it folds, figures do not
        table.add_column(name, justify="left" if named else "right", no_wrap=not named, overflow="fold")
    for name, entry in report["attacks"].items():
        table.add_row(
            name,
            f"{format_budget(entry['eps'])} {entry['norm']}" if entry["eps"] else "",
            f"{100 * entry['accuracy']:.2f} %",
            _interval(entry),
            f"{entry['forward_passes_per_image']:.1f}",
            f"{entry['backward_passes_per_image']:.1f}",
            f"{entry['seconds']:.1f}",
        )
    worst = report["worst_case"]
    table.add_row("worst case", "", f"{100 * worst['accuracy']:.2f} %", _interval(worst), "", "", "")
    return table


def verdict_line(report: dict[str, Any]) -> str:
    """The sanity check in one line: passed, or unreliable and why."""
    sanity = report["sanity"]
    if sanity["verdict"] == "passed":
        return f"sanity check on {sanity['n']} images: passed, {len(sanity['checks'])} checks"
    return f"unreliable: {'; '.join(sanity['reasons'])}"


def worst_line(report: dict[str, Any]) -> str:
    """The figure to quote: images that withstood every attack, its interval, and what it is the worst of."""
    worst, attacked = report["worst_case"], threat_of(report)
    names = [name for name, entry in report["attacks"].items() if entry["eps"]]
    of = f"worst case of {', '.join(names)}" if names else "no attack"
    budget = f", {format_threat(attacked['norm'], attacked['eps'])}" if names else ""
    images = report.get("images", {}).get("told", f"{report['n']} images")
    low, high = worst["interval"]
    share = f"{100 * worst['accuracy']:.2f} % (95 %: {100 * low:.2f} to {100 * high:.2f})"
    told = f"{of} on {images}{budget}: {share}"
    return told if report["sanity"]["verdict"] == "passed" else f"{told}, unreliable"


def _interval(entry: dict[str, Any]) -> str:
    low, high = entry["interval"]
    return f"{100 * low:.2f} .. {100 * high:.2f}"
