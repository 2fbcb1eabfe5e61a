"""Where the time of the batch's attack goes, before and after: the plain loop and the training attack.

``python -m benchmarks.speed.attack_profile --record NAME``: the case of attack_speed.py under PyTorch's
profiler, self time of operators summed by kind, both in turn. The profiler itself costs time, so shares
count more than seconds, and speed is attack_speed.py's to tell.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.attack_speed import EXACT, OURS, RECORDS, make_case, make_net, our_attack, plain_attack
from benchmarks.speed.attack_speed import Options as Case
from lasat_ray.runs.folder import provenance

AFTER = "+ both"
KINDS = {
    "convolution, backward": ("convolution_backward",),
    "convolution, forward": ("convolution", "conv2d"),
    "BatchNorm": ("batch_norm",),
    "copies and layout": ("copy_", "contiguous", "clone", "index", "cat", "empty", "zero", "fill"),
    "linear, loss": ("addmm", "mm", "softmax", "nll_loss", "linear"),
    "elementwise": ("threshold", "clamp", "add", "mul", "sub", "sign", "where", "relu", "div", "neg"),
}
"""Kind -> what the name of its operators contains; the first that fits counts."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to profile."""

    model: str = "resnet18"
    batch_size: int = 64
    threads: int = 2
    repeats: int = 5
    """Turns that are kept; one more comes first."""
    record: str | None = None
    """Name of the file in benchmarks/records."""


def kind_of(operator: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in operator for part in parts)), "rest")


def seconds_by_kind(run: Callable[[], Any]) -> dict[str, float]:
    """Self seconds of the operators of a run, by kind."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    found = dict.fromkeys([*KINDS, "rest"], 0.0)
    for event in seen.key_averages():
        found[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    return found


def medians(turns: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        when: {kind: statistics.median(turn[kind] for turn in found) for kind in found[0]}
        for when, found in turns.items()
    }


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    case = Case(model=options.model, batch_size=options.batch_size, threads=options.threads)
    batch, strategy = make_case(case)
    net, start = make_net(case, EXACT), torch.zeros_like(batch.x)
    runs = {
        "before": lambda: plain_attack(net, batch, strategy, start),
        "after": our_attack(case, OURS[AFTER], batch, strategy),
    }
    turns: dict[str, list[dict[str, float]]] = {when: [] for when in runs}
    for turn in range(options.repeats + 1):
        for when, run in runs.items():
            found = seconds_by_kind(run)
            if turn:
                turns[when].append(found)
    record = {**provenance(), "settings": asdict(options), "turns": turns, "seconds": medians(turns)}
    for kind in KINDS:
        before, after = (record["seconds"][when][kind] for when in runs)
        print(f"{kind:24} {before:8.2f} s   {after:8.2f} s")
    if options.record:
        (RECORDS / f"{options.record}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
