"""How a run is carried out, for ``lasat_ray.train`` and for the command: checked, placed, listened to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from rich.console import Console

from lasat_ray.cli.display import TrainingDisplay, waiting
from lasat_ray.cli.run_options import RunOptions, check_run
from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.learners import LEARNERS, find_learner
from lasat_ray.methods import METHODS
from lasat_ray.runs.callbacks import Callbacks
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.mirror import mirrored
from lasat_ray.runs.recorder import RecordListener
from lasat_ray.runs.trackers import Trackers
from lasat_ray.validation import check

Train = Callable[[TrainConfig, RunFolder, RecordListener], dict[str, Any]]


def check_all(config: TrainConfig, options: RunOptions) -> None:
    """UsageError for settings and options that cannot work, code from outside that is missing included."""
    check(config, METHODS, LEARNERS)
    if config.learns:
        find_learner(config.learner)  # outside code and extras that are missing, before a folder is made
    check_run(config, options, METHODS)


def run_one(
    config: TrainConfig,
    folder: RunFolder,
    options: RunOptions,
    train: Train,
    console: Console,
    callbacks: Sequence[tuple[str, object]] = (),
) -> tuple[dict[str, Any], TrainingDisplay]:
    """Train ``folder``'s run unless it is finished; ``callbacks`` as ``find_callbacks`` gives them."""
    display = TrainingDisplay(console, f"{config.method} {config.strategy}", grid_of(config))
    finished = folder.summary()
    if finished:
        return finished, display
    with display, _listened_to(options.log, folder, display, callbacks) as listener:
        listener.start(folder.path, config)
        return train(config, folder, listener), display


@contextlib.contextmanager
def _listened_to(
    trackers: Sequence[str],
    folder: RunFolder,
    display: TrainingDisplay,
    callbacks: Sequence[tuple[str, object]],
) -> Iterator[Callbacks]:
    """The display, behind it the trackers of --log, and then the user's own."""

    def warn(line: str) -> None:
        display.console.print(f"lasat-ray: warning: {line}", highlight=False, markup=False, soft_wrap=True)

    tracked = Trackers(trackers, folder, warn)
    try:
        yield Callbacks([("display", display), ("log", tracked), *callbacks])
    except BaseException:
        tracked.close(failed=True)
        raise
    tracked.close()


@contextlib.contextmanager
def uploads_of(options: RunOptions, console: Console) -> Iterator[list[tuple[str, object]]]:
    """For a run at a URL, the callback that uploads it; the last upload is at the end of the block."""
    warn = partial(console.print, "lasat-ray: warning:", highlight=False, markup=False, soft_wrap=True)
    fresh = not options.resume and not options.resume_or_start
    place = options.resume or options.out
    with mirrored(place, warn, new=fresh, bound_s=options.hang_timeout) as mirror:
        yield [("upload", mirror)] if mirror else []


@contextlib.contextmanager
def trainer(options: RunOptions, console: Console) -> Iterator[Train]:
    """How to train: in this process, or on Ray, which stays up for all runs in the block; ``console`` shows
    that it is starting."""
    if options.num_workers == 0:
        from lasat_ray.cluster.local import train_here

        yield lambda config, folder, display: train_here(
            config,
            folder,
            device=options.device,
            listener=display,
            hang_timeout=options.hang_timeout,
            accept_changed_data=options.accept_changed_data,
            log_actions=options.log_actions,
            trust=options.trust,
        )
        return
    from lasat_ray.cluster.placement import Placement
    from lasat_ray.cluster.ray_train import train_on_ray
    from lasat_ray.cluster.session import ray_session

    with contextlib.ExitStack() as stack:
        with waiting(console, "Ray"):
            stack.enter_context(ray_session(options.address, options.start_timeout))
        yield lambda config, folder, display: train_on_ray(
            config,
            folder,
            num_workers=options.num_workers,
            min_workers=options.min_workers,
            cpus_per_worker=options.cpus_per_worker,
            gpus_per_worker=options.gpus_per_worker,
            placement=Placement.of(options),
            device=options.device,
            max_failures=options.max_failures,
            start_failures=options.max_failures if options.address or options.min_workers else 0,
            hang_timeout=options.hang_timeout,
            listener=display,
            accept_changed_data=options.accept_changed_data,
            log_actions=options.log_actions,
            trust=options.trust,
        )


def fitted_to(
    config: TrainConfig,
    count: int,
    image_shape: tuple[int, int, int],
    given: set[str],
) -> tuple[TrainConfig, str]:
    """Recipe ``images`` for so many training images of (C,H,W), and what was chosen in words; ``given``: the
    options that its user set."""
    from lasat_ray.recipes.images import fitted

    config = fitted(config, count, image_shape, given)
    return config, f"--model {config.model} --batch-size {config.batch_size} --epochs {config.epochs}"
