"""The first minutes on a GPU: does it wait where nobody meant it to, is it right, where does its time go?

``python -m benchmarks.gpu.first_checks --out FILE`` needs one CUDA device, no Ray and no network; ``--tiny
--device cpu`` tries it. Eight configurations play ten rounds each with CUDA's watch for waits set to error
(the deliberate ones, ``process_group.to_host`` and a round's votes, wait for events, which it lets pass), and
three rounds in float64 that have to end with the CPU's weights; a run in two parts has to end with the
bits of the whole; one trace is summed up by kernel. The record is written anew after every section; the exit
status tells of those that failed.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.autograd import DeviceType
from torch.profiler import profile, supported_activities

from benchmarks.common import make_round, random_images
from benchmarks.gpu.gpu_bench import Bench, Options, make_game, model_names, round_config
from benchmarks.gpu.reproduce_table1 import Options as RowOptions
from benchmarks.gpu.reproduce_table1 import row_config
from lasat_ray.config import RewardConfig, SpeedConfig, TrainConfig
from lasat_ray.config.changes import changed
from lasat_ray.process_group import ProcessGroup
from lasat_ray.recipes.rate import STEPS, rated
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.numerics import RoundStatus
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from lasat_ray.training.round import play_round

ROUNDS = 10
TOLERANCE = 1e-6
"""Between float64 weights after three rounds: a sign of a gradient near zero moves a pixel by two steps."""


def configurations(options: Options) -> dict[str, TrainConfig]:
    """The eight that are watched: each way in which a round may ask something of the host."""
    small, _ = model_names(options)
    speed = SpeedConfig(channels_last=True)
    fixed, learned = (round_config(options, small, method, speed, "bf16") for method in ("pgd-at", "las-at"))
    often, eps = replace(learned, update_interval=1), fixed.attack.eps
    grid = {"eps": (eps,), "num_steps": STEPS, "step_size": (eps / 4, eps / 2, eps)}
    return {
        "PGD-AT": fixed,
        "PGD-AT, a step one graph": replace(fixed, speed=replace(speed, compile="graph", bucket=16)),
        "LAS-AT k=40": replace(learned, update_interval=40),
        "LAS-AT k=1": often,
        "influence k=1": replace(often, reward=RewardConfig(credit="influence")),
        "rate k=2": replace(rated(learned, grid, name="rate"), update_interval=2),
        "TRADES": replace(fixed, method="trades"),
        "FAT": replace(fixed, method="fat"),
    }


class Rounds:
    """Rounds as the training loop plays them: what one found is read after the next was begun."""

    def __init__(self, bench: Bench, config: TrainConfig) -> None:
        self.env, self.learner = make_game(bench, config)
        self.last: RoundStatus | None = None

    def play(self, count: int) -> None:
        for _ in range(count):
            report = play_round(self.env, self.learner)
            status = RoundStatus(report, stop=False, failed=False, group=ProcessGroup())
            if self.last is not None:
                self.last.read()
            self.last = status


@contextlib.contextmanager
def watching(bench: Bench, mode: str) -> Iterator[None]:
    """CUDA's watch for waits inside the block; nothing where there is no GPU."""
    if not bench.on_gpu:
        yield
        return
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def waits(bench: Bench, config: TrainConfig) -> dict[str, Any]:
    """Ten rounds under the watch, after the first ones; RuntimeError naming the places where a round waits
    unasked."""
    count = 2 if bench.options.tiny else ROUNDS
    rounds = Rounds(bench, config)
    rounds.play(3)
    bench.wait()
    began = time.perf_counter()
    try:
        with watching(bench, "error"):
            rounds.play(count)
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        raise RuntimeError(f"{error}; places: {places_of_waits(bench, config)}") from error
    bench.wait()
    return {"rounds": count, "seconds": time.perf_counter() - began, "watched": bench.on_gpu}


def places_of_waits(bench: Bench, config: TrainConfig) -> dict[str, int]:
    """File and line -> how often a round of the same configuration waits there unasked."""
    rounds = Rounds(bench, config)
    rounds.play(3)
    with watching(bench, "warn"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rounds.play(2)
    found = [w for w in caught if "synchroniz" in str(w.message)]
    return dict(Counter(f"{Path(w.filename).name}:{w.lineno}" for w in found))


def equals_cpu(bench: Bench, config: TrainConfig) -> dict[str, Any]:
    """The largest difference between the weights that three rounds in float64 end with here and on the CPU;
    RuntimeError beyond ``TOLERANCE``."""
    model = model_names(bench.options)[0] if bench.options.tiny else "resnet18-8"
    config = replace(config, model=model, strategy_model="small_cnn", precision="fp64", batch_size=16)
    states = []
    for device in (bench.device, torch.device("cpu")):
        env, learner = make_round(config, random_images(64), device=device)
        for _ in range(1 if bench.options.tiny else 3):
            play_round(env, learner)
        states.append({name: value.cpu() for name, value in env.net.state_dict().items()})
    ours, theirs = states
    difference = max(float((ours[name] - value).abs().max()) for name, value in theirs.items())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"differs from the CPU by {difference:.2e}, more than {TOLERANCE:g}")
    return {"largest_difference": difference}


def resumes(bench: Bench, precision: str) -> dict[str, Any]:
    """Whether a run in two parts ends with the bits of the same in one; RuntimeError where it does not."""
    config = changed(row_config(RowOptions(tiny=True), "las-at-k1"), {"precision": precision})
    ends = []
    with tempfile.TemporaryDirectory() as place:
        for name, stops in (("whole", (None,)), ("parts", (3, None))):
            RunFolder.create(Path(place) / name, config)
            for stop in stops:
                folder = RunFolder(Path(place) / name)
                context = RunContext(group=ProcessGroup(), device=bench.device, folder=folder)
                Trainer(config, context).run(stop)
            ends.append(load_checkpoint(folder.checkpoints / "last.safetensors"))
    ours, theirs = ends
    for part in ("target_net", "learner"):
        for name, value in theirs[part].items():
            if isinstance(value, torch.Tensor) and not torch.equal(value, ours[part][name]):
                raise RuntimeError(f"resumed, {part} {name} has other bits than in one run")
    return {"equal": True, "tensors": len(theirs["target_net"])}


def traced(bench: Bench, config: TrainConfig) -> dict[str, Any]:
    """Three rounds under PyTorch's profiler: the operations that take the device longest, how many there are,
    and the share of the time in which it computes; the host's where the profiler sees no kernel."""
    rounds, count = Rounds(bench, config), 1 if bench.options.tiny else 3
    rounds.play(2)
    bench.wait()
    began = time.perf_counter()
    with profile(activities=supported_activities()) as trace:
        rounds.play(count)
        bench.wait()
    wall = time.perf_counter() - began
    events = trace.key_averages()
    seen = any(event.device_type == DeviceType.CUDA for event in events)  # a driver may refuse to be watched
    on, kind = ("device", DeviceType.CUDA) if seen else ("cpu", DeviceType.CPU)  # each repeats the other's
    seconds = {e: getattr(e, f"self_{on}_time_total") / 1e6 for e in events if e.device_type == kind}
    top = sorted(seconds, key=seconds.__getitem__, reverse=True)[:20]
    launches = sum(event.count for event in events if "LaunchKernel" in event.key)
    return {
        "rounds": count,
        "kernels_seen": seen,
        "wall_seconds": wall,
        f"{on}_seconds": sum(seconds.values()),
        "busy_share": sum(seconds.values()) / wall,
        "launches_a_round": launches / count,
        "top": [{"name": e.key[:120], "calls": e.count, "seconds": seconds[e]} for e in top],
    }


def run(bench: Bench) -> None:
    cases = configurations(bench.options)
    for name, config in cases.items():
        bench.section(f"waits: {name}", partial(waits, bench, config))
    for name, config in cases.items():
        bench.section(f"as the CPU: {name}", partial(equals_cpu, bench, config))
    for precision in ("fp32", "bf16"):
        bench.section(f"resumed: {precision}", partial(resumes, bench, precision))
    for name in ("PGD-AT", "LAS-AT k=40"):
        bench.section(f"trace: {name}", partial(traced, bench, cases[name]))


def main() -> None:
    bench = Bench(tyro.cli(Options, description=__doc__))
    run(bench)
    bench.end("first_checks")


if __name__ == "__main__":
    main()
