"""Many short trainings, each evaluated once, cached as one JSON file a run: what tables are made of.

A study is a list of ``Trial``s. ``run_study`` trains each in a process of its own pool (one thread
each; PyTorch is imported once a process, not once a run), evaluates its best net with the
evaluation suite, and keeps the outcome in OUT/LABEL-sSEED/result.json. Killed and repeated, it goes
on from the last epoch of the run in hand; finished runs are not touched again, nor are those that a
committed record holds with the same settings.

Cost is counted by the run itself: forward passes of both nets per image of a round.
23 means: as much as PGD-10 training.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.studies.outcomes import Outcome, settings_key


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training. ``flags`` as for lasat_ray.train, without seed and folder; ``label`` names the
    row it belongs to. ``teacher``: label of the trial (same seed) whose run ``teacher_flag`` names; a flag
    ``@LABEL`` stands for the folder of another such run."""

    label: str
    flags: tuple[str, ...]
    seed: int
    teacher: str | None = None
    teacher_flag: str = "--teacher"

    @property
    def name(self) -> str:
        return f"{self.label}-s{self.seed}"

    @property
    def teachers(self) -> set[str]:
        """Names of the trials whose runs this one reads."""
        labels = [flag.removeprefix("@") for flag in self.flags if flag.startswith("@")]
        return {f"{label}-s{self.seed}" for label in (*labels, self.teacher) if label}


@dataclass(frozen=True, kw_only=True)
class Judge:
    """How every net is judged, on the first ``n_examples`` test images, with the run's own eps."""

    attacks: tuple[str, ...] = ("clean", "pgd-50", "aa")
    n_examples: int | None = None
    """For gradient attacks; None takes the whole test set."""
    n_autoattack: int = 100
    """For AutoAttack, the dear one."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every study's command takes."""

    out: Path = Path("runs/study")
    """Folder of the runs."""
    jobs: int = 1
    """Runs at a time, one thread each."""
    gather: bool = False
    """Start nothing; record the runs that are finished in --out."""


def outcomes_of(trials: Sequence[Trial], judge: Judge, options: RunOptions) -> list[Outcome]:
    """Run what is missing, or with ``gather`` read what is there."""
    if not options.gather:
        return run_study(trials, judge, options.out, options.jobs)
    files = [options.out / trial.name / "result.json" for trial in trials]
    return [json.loads(file.read_text()) for file in files if file.is_file()]


def seed_after_seed(
    seeds: Sequence[Sequence[Trial]], judge: Judge, options: RunOptions, record: Path
) -> Iterator[list[Outcome]]:
    """After the trials of each seed, all outcomes there are, those that ``record`` holds included.

    Recorded trials are run again only where a missing one learns from their nets.
    """
    every = [trial for trials in seeds for trial in trials]
    known = recorded(record, every, judge)
    for trials in seeds:
        missing = [trial for trial in trials if trial.name not in known]
        teachers = {name for trial in missing for name in trial.teachers}
        asked = [trial for trial in trials if trial in missing or trial.name in teachers]
        found = outcomes_of(asked, judge, options) if asked else []
        known |= {f"{o['trial']['label']}-s{o['trial']['seed']}": o for o in found}
        yield [known[trial.name] for trial in every if trial.name in known]


def recorded(file: Path, trials: Iterable[Trial], judge: Judge) -> dict[str, Outcome]:
    """Outcomes that a committed record holds of these very trials, by name."""
    runs = json.loads(file.read_text())["runs"] if file.is_file() else []
    keyed = {run["key"]: run for run in runs if "key" in run}
    keys = {trial.name: settings_key(asdict(trial), asdict(judge)) for trial in trials}
    return {name: keyed[key] for name, key in keys.items() if key in keyed}


def run_study(trials: Sequence[Trial], judge: Judge, out: Path, jobs: int) -> list[Outcome]:
    """The outcome of every trial, in order. A trial that fails is told and left out."""
    out.mkdir(parents=True, exist_ok=True)
    first = [t for t in trials if not t.teachers]
    later = [t for t in trials if t.teachers]
    found: dict[str, Outcome] = {}
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for wave in (first, later):  # teachers come before their pupils
            waiting = {pool.submit(run_trial, t, judge, out): t for t in wave}
            for done in as_completed(waiting):
                trial = waiting[done]
                try:
                    found[trial.name] = done.result()
                except Exception as error:
                    print(f"{trial.name} failed: {type(error).__name__}: {error}", flush=True)
                    continue
                print(f"[{len(found)}/{len(trials)}] {trial.name}: {_figures(found[trial.name])}", flush=True)
    return [found[trial.name] for trial in trials if trial.name in found]


def run_trial(trial: Trial, judge: Judge, out: Path) -> Outcome:
    """Train or continue, evaluate, write result.json; or read it where it is already there."""
    folder = out / trial.name
    file = folder / "result.json"
    asked = {"trial": asdict(trial), "judge": asdict(judge)}
    asked = json.loads(json.dumps(asked))  # tuples become lists, as they come back
    if file.is_file():
        known = json.loads(file.read_text())
        if {name: known[name] for name in asked} == asked:
            return known
        raise ValueError(f"{file} comes from other settings; give another --out")
    outcome = {**asked, **_train(trial, folder, out), **_evaluate(folder, judge), **_course(folder)}
    from lasat_ray.runs.checkpoint import write_atomically

    write_atomically(file, (json.dumps(outcome, indent=1) + "\n").encode())
    return outcome


def _train(trial: Trial, folder: Path, out: Path) -> dict[str, Any]:
    """The summary of the trained run, and the passes of a round per image."""
    import torch

    from lasat_ray.cli.run_options import parse_train
    from lasat_ray.cluster.local import train_here
    from lasat_ray.learners import LEARNERS
    from lasat_ray.methods import METHODS
    from lasat_ray.runs.folder import RunFolder
    from lasat_ray.validation import check

    torch.set_num_threads(1)
    flags = [str(out / f"{flag[1:]}-s{trial.seed}") if flag[:1] == "@" else flag for flag in trial.flags]
    if trial.teacher:
        flags += [trial.teacher_flag, str(out / f"{trial.teacher}-s{trial.seed}")]
    config, _ = parse_train([*flags, "--seed", str(trial.seed)])
    check(config, METHODS, LEARNERS)
    if folder.exists() and not (folder / "config.json").is_file():
        shutil.rmtree(folder)  # killed while it was made
    run = RunFolder.open(folder) if folder.exists() else RunFolder.create(folder, config)
    assert run.config() == config, f"{folder} comes from other settings; give another --out"
    summary = run.summary() or train_here(config, run, device="cpu")
    return {"summary": summary, "passes_per_image": summary["passes"] / summary["rounds"] / config.batch_size}


def _evaluate(folder: Path, judge: Judge) -> dict[str, Any]:
    """Accuracies of the best net on the test set: name -> {accuracy, n, interval}."""
    from lasat_ray.evaluation import EvaluationPlan, evaluate_net
    from lasat_ray.evaluation.subject import from_run

    subject = from_run(folder, which="best", dataset=None, root=None, max_test=None, trust=True)
    assert subject.config is not None
    settings = subject.config.evaluation
    began, found = time.perf_counter(), dict[str, Any]()
    for dear in (False, True):
        attacks = tuple(a for a in judge.attacks if a.startswith(("aa", "apgd")) == dear)
        n = judge.n_autoattack if dear else judge.n_examples
        if not attacks:
            continue
        plan = EvaluationPlan(
            attacks=attacks,
            eps=settings.eps,
            step_size=settings.step_size,
            n_examples=n,
            chunk_size=500,
            sanity_examples=0,
        )
        report = evaluate_net(subject.net, subject.images, plan)
        found |= {name: {k: entry[k] for k in ("accuracy", "n")} for name, entry in report["attacks"].items()}
    return {"evaluation": found, "evaluation_seconds": time.perf_counter() - began}


def _course(folder: Path) -> dict[str, Any]:
    """How validation and strategies went, epoch by epoch."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [r for r in records if r["kind"] == "epoch"]
    kept = ("epoch", "val_clean_acc", "val_robust_acc_pgd10", "options")
    return {"epochs": [{name: r[name] for name in kept if name in r} for r in epochs]}


def _figures(outcome: Outcome) -> str:
    told = [f"{name} {100 * entry['accuracy']:.1f}" for name, entry in outcome["evaluation"].items()]
    seconds = outcome["summary"]["train_seconds"] + outcome["evaluation_seconds"]
    return f"{', '.join(told)}; {outcome['passes_per_image']:.1f} F; {seconds:.0f} s"
