"""What a sweep is about to do: trials, how many at a time, resources, time; impossible ones are refused."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from lasat_ray.cli.placement import Spread
from lasat_ray.cluster.placement import Placement
from lasat_ray.cluster.session import SMALLEST_SHARE
from lasat_ray.errors import UsageError
from lasat_ray.process_group import indexed
from lasat_ray.training.estimate import Throughput, measure, spell_seconds
from lasat_ray.training.inputs import load_config_dataset
from lasat_ray.tune.options import SweepRun
from lasat_ray.tune.trainable import TrialResources
from lasat_ray.tune.trial import Outcome, Trial, Trials, all_trials
from lasat_ray.update.cost import expected_passes, validation_passes

Resources = dict[str, float]
_DRIVER_CPU = 0.05
"""What the process of a trial reserves beside its workers, which do all the work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlan:
    """Everything that is decided before the first trial starts. ``seconds``: estimate for the trials
    that are left, ``passes``: training passes of all trials as settings let one expect."""

    trials: list[Trial]
    left: int
    concurrent: int
    bundles: list[Resources]
    place: TrialResources
    nodes: list[Resources]
    passes: float
    seconds: float
    probe: Throughput

    def show(self, console: Console, out: str) -> None:
        rows = dict.fromkeys(trial.row for trial in self.trials)
        need = " + ".join(_spell(bundle) for bundle in self.bundles[:2])
        need += f" (x {len(self.bundles) - 1})" if len(self.bundles) > 2 else ""
        total = {key: sum(node.get(key, 0.0) for node in self.nodes) for key in ("CPU", "GPU")}
        machines = f"{len(self.nodes)} machine{'s' if len(self.nodes) > 1 else ''}"
        known = len(self.trials) - self.left
        lines = [
            f"Plan: {len(self.trials)} trials in {len(rows)} rows, {self.concurrent} at a time, each {need}"
            f"; Ray has {_spell(total)} on {machines}",
            f"      {self.probe.n_train} training images, {self.probe.rounds_per_epoch} rounds an epoch; "
            f"{self.passes:.3g} forward passes of training in all",
            f"      about {spell_seconds(self.seconds)} for the {self.left} trials to do"
            + (f" ({known} are finished)" if known else "")
            + f", at {1e6 * self.probe.seconds_per_pass:.0f} us a pass as just measured",
            f"      results in {out}",
        ]
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)


def bundles_of(run: SweepRun, cpus: float) -> list[Resources]:
    """What Ray must reserve for one trial, a bundle a process; ``cpus``: of each working process."""
    gpus = run.gpus_per_trial / max(run.num_workers, 1)
    work = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
    work |= Placement.of(run).resource
    return [{"CPU": _DRIVER_CPU}, *[work] * run.num_workers] if run.num_workers else [work]


def how_many_fit(
    nodes: Sequence[Resources], bundles: Sequence[Resources], most: int = 10_000, spread: Spread = "pack"
) -> int:
    """Trials that can run at the same time; a bundle must lie on one machine, with ``strict-pack`` all
    workers of a trial, with ``strict-spread`` no two of them."""
    own, work = bundles[:-1][:1], list(bundles[len(bundles[:-1][:1]) :])
    if spread == "strict-pack":
        work = [{name: sum(bundle[name] for bundle in work) for name in work[0]}]
    free = [dict(node) for node in nodes]
    for count in range(most):
        taken: list[Resources] = []
        for n, bundle in enumerate([*own, *work]):
            apart = taken if spread == "strict-spread" and n >= len(own) else []
            fits = (node for node in free if _holds(node, bundle) and not any(node is o for o in apart))
            room = next(fits, None)
            if room is None:
                return count
            taken += [room] if n >= len(own) else []
            for name, amount in bundle.items():
                room[name] -= amount
    return most


def _holds(node: Resources, bundle: Resources) -> bool:
    return all(node.get(name, 0.0) + 1e-6 >= amount for name, amount in bundle.items())


def cpus_of_process(run: SweepRun, nodes: Sequence[Resources], concurrent: int | None) -> float:
    """Cores of each working process: what was asked for, else 1, else a fair share of all there are."""
    processes = max(run.num_workers, 1)
    if run.cpus_per_trial is not None:
        return run.cpus_per_trial / processes
    total = sum(node.get("CPU", 0.0) for node in nodes) - _DRIVER_CPU * (concurrent or 1) * bool(
        run.num_workers
    )
    share = math.floor(100 * total / (processes * (concurrent or 1))) / 100
    return min(1.0, max(share, SMALLEST_SHARE))


def decide(run: SweepRun, nodes: Sequence[Resources], trials: Sequence[Trial]) -> tuple[int, list[Resources]]:
    """Trials at a time and what each reserves; UsageError where not even one, or not so many, fit."""
    timed = any(trial.timed for trial in trials)
    concurrent = 1 if run.max_concurrent is None and timed else run.max_concurrent
    bundles = bundles_of(run, cpus_of_process(run, nodes, concurrent))
    fit = how_many_fit(nodes, bundles, max(len(trials), 1), run.placement)
    work = _spell(bundles[-1])
    need = f"{_spell(bundles[0])} + {run.num_workers} times {work}" if run.num_workers else work
    have = ", ".join(_spell(node) for node in nodes)
    if fit == 0:
        option = "--gpus-per-trial" if run.gpus_per_trial and not any(n.get("GPU") for n in nodes) else None
        option = option or ("--placement" if run.placement.startswith("strict") else None)
        option = option or ("--num-workers" if run.num_workers else "--cpus-per-trial")
        raise UsageError(f"{option}: a trial needs {need}, Ray's machines have {have}; ask for less")
    if run.max_concurrent is not None and run.max_concurrent > fit and run.max_concurrent <= len(trials):
        raise UsageError(
            f"--max-concurrent: {run.max_concurrent} trials of {need} do not fit, "
            f"Ray's machines have {have}; give {fit} or less, or a smaller --cpus-per-trial"
        )
    return min(concurrent or fit, fit), bundles


def place_of(run: SweepRun, bundles: Sequence[Resources], out: str) -> TrialResources:
    """What a trial is told about where it runs."""
    work = bundles[-1]
    return TrialResources(
        out=out,
        cwd=os.getcwd(),
        num_workers=run.num_workers,
        cpus=work["CPU"],
        gpus=work.get("GPU", 0.0),
        max_failures=run.max_failures,
        placement=Placement.of(run),
    )


def make_plan(
    sweep: Trials, known: dict[str, Outcome], run: SweepRun, nodes: Sequence[Resources], out: str, probe: Any
) -> SweepPlan:
    """The plan; ``probe(config, place, bundles)`` looks at data and speed once all else is settled."""
    trials = all_trials(sweep, lambda trial: known.get(trial.name) or stand_in(trial))
    concurrent, bundles = decide(run, nodes, trials)
    place = place_of(run, bundles, out)
    seen: Throughput = probe(trials[0].config, place, bundles)
    check_rounds(trials, seen.rounds_per_epoch)
    passes = {trial.name: trial_passes(trial, seen) for trial in trials}
    left = [trial for trial in trials if trial.name not in known]
    validation = sum(validation_passes(t.config, seen.n_val, seen.n_train // 4) for t in left if not t.parent)
    work = sum(passes[trial.name] for trial in left) + validation
    seconds = work * seen.seconds_per_pass / max(run.num_workers, 1) / concurrent
    return SweepPlan(
        trials=trials,
        left=len(left),
        concurrent=concurrent,
        bundles=bundles,
        place=place,
        nodes=list(nodes),
        passes=sum(passes.values()),
        seconds=seconds + 3.0 * len(left) / concurrent,
        probe=seen,
    )


def stand_in(trial: Trial) -> Outcome:
    """An outcome for planning: every trial equally good."""
    return Outcome(status="finished", curve=((trial.stop_epoch or trial.config.epochs, 0.5, 0.5),))


def trial_passes(trial: Trial, probe: Throughput) -> float:
    """Training passes that a trial's settings let one expect; of minutes, what they suffice for."""
    if trial.config.budget_minutes:
        return 60 * trial.config.budget_minutes / probe.seconds_per_pass
    if trial.config.budget_passes:
        return expected_passes(trial.config, probe.rounds_per_epoch)
    end = trial.stop_epoch or trial.config.epochs
    return expected_passes(trial.config, probe.rounds_per_epoch, end - trial.info.get("start_epoch", 0))


def check_rounds(trials: Sequence[Trial], rounds_per_epoch: int) -> None:
    """Refuse a k so large that the strategy net would never learn."""
    for trial in trials:
        rounds = trial.config.epochs * rounds_per_epoch
        by_budget = trial.config.budget_passes or trial.config.budget_minutes
        if trial.config.learns and not by_budget and trial.config.update_interval > rounds:
            raise UsageError(
                f"{trial.row}: the run has {rounds} rounds, the strategy net would never learn; "
                "give a smaller k, more --epochs or a smaller --batch-size"
            )


def measure_here(config: Any, place: TrialResources) -> Throughput:
    """Time a few rounds on the processor or the GPU that trials will use."""
    torch.set_num_threads(max(1, int(place.cpus)))
    return measure(config, load_config_dataset(config), indexed("cuda" if place.gpus else "cpu"))


def _spell(resources: Resources) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items() if name in ("CPU", "GPU"))
