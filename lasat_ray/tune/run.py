"""Runs a sweep on Ray Tune: plan first, then trials, then tables; and goes on where a dead driver stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import ray
from ray import tune
from rich.console import Console

from lasat_ray.cluster.placement import Placement, fitting
from lasat_ray.cluster.session import ray_session, wait_free
from lasat_ray.errors import UserError
from lasat_ray.errors.interrupts import interrupted
from lasat_ray.learners import LEARNERS
from lasat_ray.methods import METHODS
from lasat_ray.runs.folder import provenance
from lasat_ray.tune.feed import Asha, OnError, TuneSearcher
from lasat_ray.tune.live import Board
from lasat_ray.tune.options import DEFINITION, Asked
from lasat_ray.tune.plan import SweepPlan, Throughput, make_plan, measure_here
from lasat_ray.tune.storage import TRIALS, Store
from lasat_ray.tune.trainable import OUTCOME, TrialResources, run_job
from lasat_ray.tune.trial import Outcome, Trial, Trials, all_trials
from lasat_ray.validation import check

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run folders keep every record
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial has no accuracy to report
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends us; --resume goes on
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "TUNE_WARN_THRESHOLD_S": "30",
    "RAY_AIR_NEW_OUTPUT": "0",  # its banner is printed even when Tune is told to be silent
}


def run_sweep(asked: Asked, sweep: Trials, console: Console) -> dict[str, Outcome] | None:
    """Every trial's outcome; None after --dry-run. UserError before anything is written where the
    sweep cannot run."""
    for trial in all_trials(sweep, lambda _: Outcome(status="finished", curve=((1, 0.5, 0.5),))):
        check(trial.config, METHODS, LEARNERS)
    known = known_outcomes(asked.store, sweep)
    if asked.goes_on and _complete(sweep, known) and asked.store.exists(DEFINITION):
        return known
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    workers = asked.run.num_workers
    with (
        contextlib.nullcontext() if asked.run.dry_run else asked.store.alone(DEFINITION),
        ray_session(asked.run.address, asked.run.start_timeout, dashboard=bool(workers)),
    ):
        nodes = [node["Resources"] for node in fitting(Placement.of(asked.run))]
        plan = make_plan(sweep, known, asked.run, nodes, asked.store.out, measure_on_ray)
        plan.show(console, asked.store.out)
        if asked.run.dry_run:
            return None
        if not asked.store.exists(DEFINITION):
            facts = {"definition": asked.definition(), **provenance()}
            asked.store.write_json(DEFINITION, facts)
        with Board(console, plan, known) as board, _told_how_to_go_on(asked.store.out):
            return _tune(asked, sweep, known, plan, board)


@contextlib.contextmanager
def _told_how_to_go_on(out: str) -> Iterator[None]:
    """A signal ends the sweep in one line, with the exit status that a shell expects of it."""
    try:
        yield
    except KeyboardInterrupt:
        raise interrupted(f"; each trial is saved up to its last epoch, go on with --resume {out}") from None


def known_outcomes(store: Store, sweep: Trials) -> dict[str, Outcome]:
    """Outcomes of trials that are finished or were stopped by ASHA; what failed is to run again."""
    known: dict[str, Outcome] = {}
    while True:
        new = [trial.name for trial in sweep(known) if trial.name not in known]
        found = {name: store.read_json(f"{TRIALS}/{name}/{OUTCOME}") for name in new}
        found = {name: Outcome.from_json(data) for name, data in found.items() if data}
        if not found:
            return known
        known |= found


def _complete(sweep: Trials, known: dict[str, Outcome]) -> bool:
    return all(trial.name in known for trial in sweep(known))


def measure_on_ray(config: Any, place: TrialResources, bundles: list[dict[str, float]]) -> Throughput:
    """``probe_here`` on a machine where a trial would run; UserError where others hold it."""
    work = bundles[-1]
    need = {name: sum(bundle.get(name, 0.0) for bundle in bundles) for name in work}
    wait_free(1, need)
    where = {
        "accelerator_type": place.placement.accelerator_type,
        "label_selector": dict(place.placement.node_labels) or None,
    }
    remote = ray.remote(num_cpus=work["CPU"], num_gpus=work.get("GPU", 0.0), max_retries=0, **where)(_probe)
    told = ray.get(remote.remote(config, place))
    if isinstance(told, UserError):
        raise told
    return told


def _probe(config: Any, place: TrialResources) -> Throughput | UserError:
    """Errors that are the user's to mend come back as values: raised, Ray would wrap them."""
    if os.path.isdir(place.cwd):
        os.chdir(place.cwd)
    try:
        return measure_here(config, place)
    except UserError as error:
        return error


def _tune(
    asked: Asked, sweep: Trials, known: dict[str, Outcome], plan: SweepPlan, board: Board
) -> dict[str, Outcome]:
    feed = TuneSearcher(sweep, known, place=plan.place, concurrent=plan.concurrent, heard=board)
    epochs = max(trial.config.epochs for trial in plan.trials)
    # The process of a trial that has workers computes nothing and may lie anywhere.
    labels = {} if plan.place.num_workers else dict(plan.place.placement.node_labels)
    bundles = tune.PlacementGroupFactory(plan.bundles[:1], bundle_label_selector=[labels] if labels else None)
    with _scratch() as scratch:
        tune.Tuner(
            tune.with_resources(run_job, bundles),
            tune_config=tune.TuneConfig(
                search_alg=feed,
                scheduler=Asha(epochs, known) if asked.run.asha else None,
                num_samples=-1,
                # A process whose trial started workers of its own may still hold them when stopped.
                reuse_actors=not plan.place.num_workers,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=plan.place.max_failures),
                callbacks=[OnError(board.lost)],
            ),
        ).fit()
    return feed.outcomes


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A place for Tune's own notes, which nothing reads: the run folders are the state."""
    path = tempfile.mkdtemp(prefix="lasat-tune-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def finish(asked: Asked, trials: list[Trial], outcomes: dict[str, Outcome], console: Console) -> int:
    """Tell of failures; exit status 1 if there were any."""
    failed = [trial for trial in trials if outcomes[trial.name].status == "failed"]
    for trial in failed:
        console.print(
            f"failed: {trial.name}: {outcomes[trial.name].error}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if failed:
        sys.stderr.write(
            f"lasat-ray: error: {len(failed)} of {len(trials)} trials failed; what failed runs again with "
            f"--resume {asked.store.out}\n"
        )
    return 1 if failed else 0
