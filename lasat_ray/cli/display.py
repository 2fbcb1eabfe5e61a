"""What a person sees of a run: a live line while it trains, plain lines in a log, tables at the end."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from lasat_ray.config import TrainConfig
from lasat_ray.config.units import NAMED_FIELDS, Grid, field_name, format_budget, format_threat, format_value

_FINE = 12  # values of a field, above which its ends stand on a line of their own: 80 columns hold the rest


class TrainingDisplay:
    """A callback of every run. On a terminal: a bar that moves within epochs; elsewhere: a line an epoch."""

    def __init__(self, console: Console, title: str, grid: Grid):
        self.console = console
        self.title = title
        self.grid = grid
        self.first_options: dict[str, list[float]] | None = None
        self.last_options: dict[str, list[float]] | None = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._per_epoch = 0.0  # of the whole run, what an epoch is; 0 while nobody knows

    def __enter__(self) -> TrainingDisplay:
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=self.console, transient=True)
            self._progress.start()
            self._task = self._progress.add_task(f"{self.title}: starting", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def on_start(self, folder: Path, config: TrainConfig) -> None:
        """How far an epoch moves the bar; of a run with a budget its first epoch tells that."""
        of_unknown_length = config.budget_passes or config.budget_minutes
        self._per_epoch = 0.0 if of_unknown_length else 1 / config.epochs

    def on_record(self, record: dict[str, Any]) -> None:
        """What is told in words: a warning, or a round that was not finite."""
        if "told" in record:
            self.console.print(
                f"{self.title}: {record['told']}", highlight=False, markup=False, soft_wrap=True
            )

    def on_epoch(self, record: dict[str, Any]) -> None:
        """A line, and the strategies for the table at the end."""
        self.first_options = self.first_options or record["options"]
        self.last_options = record["options"]
        self._show_epoch(record)

    def on_round(self, record: dict[str, Any]) -> None:
        """The live line."""
        if not self._progress or self._task is None:
            return
        parts = [f"epoch {record['epoch']:.1f}", f"loss {record['loss']:.3f}"]
        if "reward" in record:
            parts.append(f"reward {record['reward']:.2f}")
        parts += [f"{name} {format_mean(self.grid[name], record[name])}" for name in ("eps", "num_steps")]
        self._progress.update(self._task, description=f"{self.title}: " + ", ".join(parts))
        if self._per_epoch:
            done = min(1.0, record["epoch"] * self._per_epoch)
            self._progress.update(self._task, total=1.0, completed=done)

    def _show_epoch(self, record: dict[str, Any]) -> None:
        done = record.get("budget_spent", record["epoch"] / record["epochs"])
        if self._progress and self._task is not None:
            self._progress.update(self._task, total=1.0, completed=done)
            self._per_epoch = done / record["epoch"]
        left = record["train_seconds"] / done * max(0.0, 1 - done)
        epochs = f"({100 * done:.0f} %)" if "budget_spent" in record else f"/{record['epochs']}"
        parts = [f"epoch {record['epoch']:>3}{epochs}", f"{record['img_per_second']:.0f} img/s"]
        parts += [f"{name} {100 * record[key]:.1f} %" for key, name in _validated(record)]
        parts.append(f"{left:.0f} s left")
        self.console.print(f"{self.title}: " + ", ".join(parts), highlight=False, soft_wrap=True)


@contextmanager
def waiting(console: Console, for_what: str) -> Iterator[None]:
    """A live line while something starts that tells nothing itself; a log shows none."""
    if not console.is_terminal:
        yield
        return
    with console.status(f"starting {for_what}"):
        yield


def next_lines(folder: Path, *, evaluated: bool = False) -> list[str]:
    """What is done with a run next, each a line of its own; of other tools those that are installed. Once
    it was ``evaluated``, the report alone."""
    name = shlex.quote(str(folder))
    lines = [f"python -m lasat_ray.report {name} --out {shlex.quote(str(folder / 'report'))}"]
    if not evaluated:
        lines.insert(0, f"python -m lasat_ray.evaluate {name}")
        lines += [f"tensorboard --logdir {name}"] if find_spec("tensorboard") else []
        lines.append(f"in Python: lasat_ray.load_model({str(folder)!r})")
    return [f"{'Next:' if n == 0 else '':5} {line}" for n, line in enumerate(lines)]


def _validated(record: dict[str, Any]) -> list[tuple[str, str]]:
    """(key, words) of the validation figures in a record."""
    names = [key for key in record if key.startswith("val_") and "unaveraged" not in key]
    return [(key, key.removeprefix("val_").removeprefix("robust_acc_").removesuffix("_acc")) for key in names]


def format_mean(values: Sequence[float], mean: float) -> str:
    """A mean of these values, spelled as they are: counts, n/255 or decimals."""
    if all(value >= 1 for value in values):
        return f"{mean:.1f}"
    over_255 = all("/255" in format_budget(value) for value in values)
    return f"{mean * 255:.1f}/255" if over_255 else f"{mean:.3f}"


def result_table(summaries: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    """Accuracy on the test set, one row per run: (name, summary); passes as --budget counts them."""
    first = summaries[0][1]
    threat = format_threat(first["norm"], first["eps"])
    images = first.get("test_images", {}).get("told", f"{first['n_test']} images")
    table = Table(title=f"Test set, {images}, {threat}")
    table.add_column("run", overflow="fold")  # a method of somebody's may be long: it folds, figures do not
    robust = [key for key in summaries[0][1] if key.startswith("robust_acc_")]
    for key in ("clean_acc", *robust):
        head = key.removesuffix("_acc").replace("robust_acc_pgd", "PGD-")
        table.add_column(head, justify="right", no_wrap=True)
    for head in ("rounds", "passes", "img/s"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, summary in summaries:
        accuracies = [f"{100 * summary[key]:.1f} %" for key in ("clean_acc", *robust)]
        passes = f"{summary['passes_per_image']:.0f}" if "passes_per_image" in summary else "-"
        table.add_row(name, *accuracies, str(summary["rounds"]), passes, f"{summary['img_per_second']:.0f}")
    return table


def chance_line(summary: dict[str, Any]) -> str | None:
    """What a net reaches that has learnt nothing but the largest class; None for runs that kept no counts."""
    images = summary.get("test_images")
    if not images:
        return None
    return (
        f"To compare: always naming the largest of {images['classes']} classes is right on "
        f"{100 * images['largest_class']:.1f} % of these images, under every attack."
    )


def saved_line(spent: float, constant: float, steps: int) -> str:
    """What a strategy's rounds took beside what as many with ``steps`` for every image would have, both in
    passes per training image."""
    share = 100 * (1 - spent / constant)
    told = f"{share:.0f} % saved" if share >= 0 else f"{-share:.0f} % more"
    return (
        f"{steps} steps for every image would have cost {constant:,.0f} passes in as many rounds; "
        f"the strategy spent {spent:,.0f}: {told}."
    )


def leak_line(summary: dict[str, Any]) -> str | None:
    """That test images were trained on; None where none was."""
    shared = summary.get("n_test_in_training")
    if not shared:
        return None
    return (
        f"{shared:,} of {summary['n_test']:,} test images are training images too, pixel for pixel: "
        "these figures flatter the net; take them out of one part."
    )


def strategy_table(
    grid: Grid, first: dict[str, list[float]], last: dict[str, list[float]], norm: str
) -> Table:
    """How the distribution of each field moved: its share per value in the first and last epoch; ``norm``:
    that of the lengths."""
    table = Table(title="Strategies chosen, first epoch -> last epoch")
    table.add_column("field", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True)
    table.add_column("share of each value", no_wrap=True)
    for name, values in grid.items():
        if len(values) < 2:
            continue
        means = [_mean(values, counts[name]) for counts in (first, last)]
        named = name in NAMED_FIELDS  # names have no mean
        ends = f"({format_value(name, values[0])} .. {format_value(name, values[-1])})"
        told = "" if named else " -> ".join(format_mean(values, mean) for mean in means)
        between = "\n" if len(values) > _FINE else "  "
        table.add_row(
            field_name(name, norm), told, f"{_spark(first[name])} -> {_spark(last[name])}{between}{ends}"
        )
    return table


def _mean(values: Sequence[float], counts: Sequence[float]) -> float:
    return sum(v * c for v, c in zip(values, counts, strict=True)) / max(sum(counts), 1.0)


def _spark(counts: Sequence[float]) -> str:
    """Counts as one block character each, tallest for the most frequent."""
    most = max(counts) or 1.0
    return "".join("·▁▂▃▄▅▆▇█"[round(8 * count / most)] for count in counts)
