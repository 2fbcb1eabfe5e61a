"""Faults at random rounds of a small run; afterwards the run must be what it is without them.

python -m benchmarks.faults.fault_campaign  # injects what the record does not hold yet
python -m benchmarks.faults.fault_campaign --only Ray  # only faults whose name begins so

Every fault hits a process of its own, which a second process then continues; what hits a run on Ray is
in ``ray_faults.py``. It counts as survived when
weights and records have the bits of the undisturbed run, every round stands once, and no temporary file
is left.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.common import RECORDS, made_by
from benchmarks.faults.local_faults import FAULTS, THREADS, TWICE, UPLOAD, damage
from benchmarks.faults.local_faults import STATUS as STATUS_HERE
from benchmarks.faults.ray_faults import (
    BY_HAND,
    GCS,
    RAY_FAULTS,
    TwoNodes,
    calm_on_ray,
    strike_on_ray,
    two_nodes,
)
from benchmarks.faults.strikes import ROUNDS, campaign_config
from benchmarks.tables.marked import markdown
from lasat_ray.cluster import local
from lasat_ray.errors import UserError
from lasat_ray.runs import checkpoint
from lasat_ray.runs.begin import holds_run
from lasat_ray.runs.callbacks import Callbacks
from lasat_ray.runs.folder import RunFolder, provenance
from lasat_ray.runs.mirror import brought, local_path, mirrored
from lasat_ray.training.loop import Trainer

RECORD = RECORDS / "fault_campaign_cpu.json"
TIMES = ("train_seconds", "img_per_second")
EVERY, HANG_S = 2, 5.0

ALL = (*FAULTS, *RAY_FAULTS)
# Mended while the driver waits, but where it ended.
STATUS = STATUS_HERE | {fault: 0 for fault in RAY_FAULTS if fault not in BY_HAND} | {GCS: 1}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to inject."""

    faults: int = 4
    """Of each kind; rounds are drawn."""
    only: str = ""
    """Only kinds whose name begins with this."""
    minutes: float = math.inf
    """No fault is begun after so many; the same command goes on."""
    seed: int = 0
    """Names the draws."""


def train(
    path: Path, log: Path, fault: str | None, round: int, threads: int = 1, url: str | None = None
) -> None:
    """One process of a run; every round it begins is a line in ``log``. With ``url`` the run is there, and
    ``path`` the present folder of a machine."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    signal.signal(signal.SIGINT, signal.default_int_handler)  # and this in a shell's background
    if url is not None:
        os.chdir(path)
        path = brought(url, "--out", begun=False)

    class Struck(Trainer):
        def restore(self) -> None:
            super().restore()
            if fault:
                FAULTS[fault](self, round)

        def play(self) -> Any:
            report = super().play()
            with open(log, "a") as file:
                file.write(f"{report.round} {time.time()}\n")
            return report

    local.Trainer = Struck  # type: ignore[misc]
    folder = RunFolder(path) if holds_run(path) else RunFolder.create(path, campaign_config())
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # tracebacks of the watchdog
    try:
        with mirrored(url, print) as mirror:
            listeners = Callbacks([("upload", mirror)] if mirror else [])
            listeners.start(folder.path, folder.config())
            local.train_here(
                folder.config(),
                folder,
                device="cpu",
                listener=listeners,
                checkpoint_every=EVERY,
                hang_timeout=HANG_S if fault == "hanging round" else 120.0,
            )
    except UserError as error:
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def process(path: Path, log: Path, fault: str | None = None, round: int = -1, **how: Any) -> int | None:
    """Run ``train`` in a fork, which saves the imports; its exit status."""
    context = multiprocessing.get_context("fork")
    child = context.Process(target=train, args=(path, log, fault, round), kwargs=how)
    child.start()
    child.join(300)
    child.kill()
    return child.exitcode


def state_of(folder: RunFolder) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Every tensor of the last and the best checkpoint, and the records without times and warnings."""
    tensors: dict[str, bytes] = {}

    def walk(node: Any, name: str) -> None:
        if isinstance(node, torch.Tensor):
            tensors[name] = node.numpy().tobytes()
        elif isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{name}/{key}")

    for name in ("last", "best"):
        walk(checkpoint.load_checkpoint(folder.checkpoints / f"{name}.safetensors"), name)
    records = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    kept = [{k: v for k, v in r.items() if k not in TIMES} for r in records if r["kind"] != "warning"]
    return tensors, kept


def leftovers(folder: RunFolder) -> list[str]:
    return [str(path) for path in folder.path.rglob("*.tmp")]


def inject(fault: str, round: int, out: Path, expected: Any) -> dict[str, Any]:
    """One fault (or two), one continuation; what came of it."""
    log, url = out / "rounds.txt", f"file://{out}/store/run" if fault == UPLOAD else None
    first, second = (out / "a", out / "b") if url else (out / "run", out / "run")
    for machine in (first, second) if url else ():
        machine.mkdir()
    status = process(first, log, fault, round, url=url)
    if fault == TWICE:
        status = process(first, log, fault, round + 2)
    ended = time.time()
    before = len(log.read_text().splitlines()) if log.exists() else 0
    folder = RunFolder(second / local_path(url) if url else second)
    if not url:
        damage(folder, fault)
    resumed = process(second, log, threads=2 if fault == THREADS else 1, url=url)
    lines = log.read_text().splitlines()
    again = float(lines[before].split()[1]) if len(lines) > before else time.time()
    same = resumed == 0 and state_of(folder) == expected and not leftovers(folder)
    return {
        "fault": fault,
        "round": round,
        "status": status,
        "survived": bool(same and status == STATUS.get(fault, -signal.SIGKILL)),
        "lost_rounds": len(lines) - ROUNDS,
        "recovery_seconds": round_to(again - ended),
    }


def inject_on_ray(nodes: TwoNodes, fault: str, round: int, out: Path, expected: Any) -> dict[str, Any]:
    """``inject`` for a fault of a run on Ray."""
    told = strike_on_ray(nodes, fault, round, out)
    whole = told["last_status"] == 0 and told["recovery"] is not None
    same = whole and state_of(told["folder"]) == expected and not leftovers(told["folder"])
    return {
        "fault": fault,
        "round": round,
        "status": told["status"],
        "survived": bool(same and told["status"] == STATUS.get(fault, -signal.SIGKILL)),
        "lost_rounds": told["played"] - ROUNDS,
        "recovery_seconds": round_to(told["recovery"]) if whole else None,
    }


def round_to(seconds: float) -> float:
    return float(f"{seconds:.2f}")


def tables() -> dict[str, str]:
    """Mark -> table, a row per kind of fault."""
    rows = []
    for fault in [*ALL, "all"]:
        found = [run for run in runs() if fault in (run["fault"], "all")]
        if not found:
            continue
        lost = [run["lost_rounds"] for run in found]
        known = [run["recovery_seconds"] for run in found if run["recovery_seconds"] is not None]
        seconds = statistics.mean(known) if known else float("nan")
        survived = sum(run["survived"] for run in found)
        told = f"{statistics.mean(lost):.1f} ({max(lost)})"
        rows.append([fault, len(found), survived, told, f"{seconds:.1f}"])
    heads = ["fault", "injected", "survived", "lost rounds, mean (most)", "recovery, mean s"]
    return {"fault-campaign": markdown(heads, rows)}


def run_campaign(options: Options) -> None:
    """Go on from the record; it is written after every fault."""
    end = time.monotonic() + 60 * options.minutes
    with contextlib.ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for kinds, begin in ((FAULTS, begin_here), (RAY_FAULTS, begin_on_ray)):
            due = missing([fault for fault in kinds if fault.startswith(options.only)], options.faults)
            strike = begin(path, stack) if due else None
            for fault, n in due:
                if time.monotonic() > end:
                    return
                # Not the last rounds: after the last checkpoint nothing would be left to strike.
                round = random.Random(f"{options.seed}/{fault}/{n}").randrange(1, ROUNDS - 3)
                assert strike is not None
                with tempfile.TemporaryDirectory(dir=path) as out:
                    run = strike(fault, round, Path(out))
                print(run, flush=True)
                write([*runs(), {**run, "commit": provenance()["commit"]}], options.seed)


def missing(kinds: list[str], wanted: int) -> list[tuple[str, int]]:
    """Which faults the record lacks, kinds in turn, and how many of its kind come before each."""
    counts = {kind: sum(run["fault"] == kind for run in runs()) for kind in kinds}
    return [(kind, n) for n in range(wanted) for kind in kinds if n >= counts[kind]]


Inject = Callable[[str, int, Path], dict[str, Any]]


def begin_here(path: Path, stack: contextlib.ExitStack) -> Inject:
    """Play the undisturbed run in a process; how faults are injected then."""
    calm = RunFolder(path / "calm")
    if process(calm.path, path / "calm.txt") != 0:
        raise RuntimeError("the undisturbed run failed")
    return functools.partial(inject, expected=state_of(calm))


def begin_on_ray(path: Path, stack: contextlib.ExitStack) -> Inject:
    """The same on a cluster, which lives as long as ``stack``."""
    nodes = stack.enter_context(two_nodes(path))
    return functools.partial(inject_on_ray, nodes, expected=state_of(calm_on_ray(nodes, path)))


def runs() -> list[dict[str, Any]]:
    return json.loads(RECORD.read_text())["runs"] if RECORD.exists() else []


def write(found: list[dict[str, Any]], seed: int) -> None:
    head = {**made_by("benchmarks.faults.fault_campaign"), "seed": seed, "cpus": provenance()["cpus"]}
    lines = ",\n".join(json.dumps(run) for run in found)
    text = json.dumps(head, indent=1)[:-2] + ',\n "runs": [\n' + lines + "\n]\n}\n"
    checkpoint.write_atomically(RECORD, text.encode())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        run_campaign(tyro.cli(Options, description=__doc__))
