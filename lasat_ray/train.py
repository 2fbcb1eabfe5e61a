"""``python -m lasat_ray.train``: train a robust classifier, here or on Ray workers."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lasat_ray.cli.command import run_command
from lasat_ray.cli.display import (
    chance_line,
    leak_line,
    next_lines,
    result_table,
    saved_line,
    strategy_table,
)
from lasat_ray.cli.run_options import (
    RunOptions,
    parse_train,
    render_config,
    render_recipes,
)
from lasat_ray.cli.streams import make_console, printed_status
from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.config.config_file import config_of_file, spell_settings
from lasat_ray.config.json_io import flag
from lasat_ray.config.urls import is_url
from lasat_ray.errors import UsageError
from lasat_ray.errors.interrupts import interrupted, is_interrupt
from lasat_ray.recipes.compared import compared
from lasat_ray.recipes.images import is_fitted
from lasat_ray.update.cost import constant_passes
from lasat_ray.validation import check

if TYPE_CHECKING:
    from lasat_ray.cli.display import TrainingDisplay
    from lasat_ray.runs.folder import RunFolder


def main() -> int:
    """The command; exit status 0, 1 (run time) or 2 (usage)."""
    return run_command(train_command)


def train_command() -> int:
    config, options = parse_train(sys.argv[1:])
    console = make_console()
    if options.list_recipes:
        console.print(render_recipes())
        return printed_status()
    # Below this line torch is loaded: help and lists answer without it.
    from lasat_ray.api.running import check_all, run_one, trainer, uploads_of
    from lasat_ray.learners import LEARNERS
    from lasat_ray.methods import METHODS

    if is_fitted(config.recipe) and not options.resume:
        check(config, METHODS, LEARNERS)  # before any image is read
        config = fit_images(config, options, sys.argv[1:], console)
    check_all(config, options)
    rival = compared(config, options.compare) if options.compare else None
    if rival:
        check(rival, METHODS, LEARNERS)
    if options.dry_run:
        as_flags = options.format == "flags"
        text = render_config(config) if as_flags else spell_settings(config, options.format)
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return printed_status()
    from lasat_ray.runs.callbacks import find_callbacks
    from lasat_ray.runs.cleanup import undone_if_refused
    from lasat_ray.runs.folder import fresh_path

    callbacks = find_callbacks(options.callbacks)
    out = options.folder or fresh_path(config)
    place = options.resume or options.out or str(out)
    how = contextlib.nullcontext(_never) if _is_finished(out, rival) else trainer(options, console)
    uploads = uploads_of(options, console)
    with _told_how_to_go_on(out, place), uploads as uploaded, undone_if_refused(out), how as train:
        listeners = [*callbacks, *uploaded]
        runner = partial(run_one, options=options, train=train, console=console, callbacks=listeners)
        _run_all(config, rival, options, out, runner, console)
    return 0


@contextlib.contextmanager
def _told_how_to_go_on(out: Path, place: str) -> Iterator[None]:
    """A signal ends the run in one line, with the status that a shell expects of it. ``place``: a URL, or
    ``out``."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not is_interrupt(error):
            raise
        kept = (out / "config.json").is_file()
        raise interrupted(f"; continue with --resume {place}" if kept else "; nothing was written") from None


def _is_finished(out: Path, rival: TrainConfig | None) -> bool:
    """Whether nothing is left to train: then neither Ray nor a device is asked for."""
    from lasat_ray.runs.folder import RunFolder

    places = [out, *([_beside(out, rival)] if rival else [])]
    return all(RunFolder(place).summary() is not None for place in places)


def _beside(out: Path, rival: TrainConfig) -> Path:
    """The run folder of --compare, in the other run's."""
    return out / f"compare-{rival.method}"


def _never(*_: object) -> dict[str, Any]:
    raise AssertionError("a finished run is not trained")


def fit_images(
    config: TrainConfig, options: RunOptions, argv: Sequence[str], console: Console
) -> TrainConfig:
    """Sizes by the images that are there, told together with the time they will take."""
    from lasat_ray.api.running import fitted_to
    from lasat_ray.cluster.local import choose_device
    from lasat_ray.recipes.images import fitted_as
    from lasat_ray.runs.begin import holds_run
    from lasat_ray.runs.folder import RunFolder
    from lasat_ray.training.estimate import expected_seconds, spell_seconds
    from lasat_ray.training.inputs import load_config_dataset

    given = {token.partition("=")[0].replace("_", "-") for token in argv}
    if options.config:
        given |= {flag(path) for path in config_of_file(Path(options.config), None, lambda _: config)[1]}
    if options.resume_or_start and options.folder and holds_run(options.folder):
        return fitted_as(config, RunFolder(options.folder).config(), given)
    dataset = load_config_dataset(config)
    config, chosen = fitted_to(config, len(dataset.train), dataset.image_shape, given)
    told = (
        f"{len(dataset.train):,} training images {dataset.image_shape} (C,H,W), {dataset.num_classes} classes"
    )
    line = f"Recipe {config.recipe} for {told}: {chosen}"
    if not options.num_workers:
        seconds = expected_seconds(config, dataset, choose_device(options.device), options.trust)
        line += f"; about {spell_seconds(seconds)}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)
    return config


def _for_equal(by: str, rival: TrainConfig, summary: dict[str, Any]) -> TrainConfig:
    """``rival`` with what the run of ``summary`` spent as its budget."""
    if by == "rounds":
        return rival
    passes = summary["passes_per_image"] if by == "passes" else 0.0
    minutes = summary["train_seconds"] / 60 if by == "seconds" else 0.0
    return dataclasses.replace(rival, budget_passes=passes, budget_minutes=minutes)


def _run_all(
    config: TrainConfig,
    rival: TrainConfig | None,
    options: RunOptions,
    out: Path,
    run: Callable[[TrainConfig, RunFolder], tuple[dict[str, Any], TrainingDisplay]],
    console: Console,
) -> None:
    from lasat_ray.runs.begin import holds_run, resume_or_start
    from lasat_ray.runs.cleanup import undone_if_refused
    from lasat_ray.runs.folder import RunFolder

    folder = _opened(config, options, out)
    results = [(f"{config.method} {config.strategy}", run(config, folder))]
    if rival:
        path = _beside(folder.path, rival)
        rival = _for_equal(options.compare_by, rival, results[0][1][0])
        with undone_if_refused(path):
            beside = RunFolder(path) if holds_run(path) else resume_or_start(path, rival)
            rival = beside.config()
            results.append((f"{rival.method} fixed", run(rival, beside)))
    console.print(result_table([(name, summary) for name, (summary, _) in results]))
    summary = results[0][1][0]
    for told in (chance_line(summary), leak_line(summary)):
        if told:
            console.print(told, highlight=False, soft_wrap=True)
    if "passes_per_image" in summary and (constant := constant_passes(config, summary["rounds"])):
        spent = summary["passes_per_image"]
        images = summary["passes"] / spent
        line = saved_line(spent, constant / images, config.attack.num_steps)
        console.print(line, highlight=False, soft_wrap=True)
    display = results[0][1][1]
    if display.first_options and display.last_options and config.strategy != "fixed":
        moved = display.first_options, display.last_options
        console.print(strategy_table(grid_of(config), *moved, config.attack.norm))
    copied = f", uploaded to {place}" if is_url(place := options.resume or options.out) else ""
    console.print(f"Run folder: {folder.path}{copied}", highlight=False, soft_wrap=True)
    for line in next_lines(folder.path):
        console.print(line, highlight=False, soft_wrap=True)


def _opened(config: TrainConfig, options: RunOptions, out: Path) -> RunFolder:
    """The folder of the run: a new one, or one that is continued under the settings that it has."""
    from lasat_ray.runs.begin import resume_or_start
    from lasat_ray.runs.folder import RunFolder

    if options.resume_or_start:
        return resume_or_start(out, config, run=dataclasses.asdict(options))
    if not options.resume:
        return RunFolder.create(out, config, run=dataclasses.asdict(options))
    folder = RunFolder.open(out)
    if folder.config() != config:
        raise UsageError("--resume: a resumed run keeps its settings; leave the other settings out")
    return folder


if __name__ == "__main__":
    sys.exit(main())
