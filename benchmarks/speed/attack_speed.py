"""How fast the batch's adversarial images are made, beside the loop that research code runs.

``python -m benchmarks.speed.attack_speed --record NAME``: a ResNet-18 at 32x32, 64 images, strategies
drawn uniformly from eps 3-15, steps 3-14, step size 1-5 (/255). Every variant gets the same images
and strategies in turn, in one process with the same number of threads; the record holds all repeats.

``--profile`` instead puts the plain loop and ours under PyTorch's profiler, in turn: self time of operators,
summed by kind. The profiler itself costs time, so shares count more than seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from benchmarks.common import in_turn, ratio, write_record
from lasat_ray.attacks import attack_batch
from lasat_ray.config import SpeedConfig
from lasat_ray.models import AttackView, build_classifier
from lasat_ray.rng import RandomKey
from lasat_ray.runs.folder import provenance
from lasat_ray.types import Batch, Strategy

EXACT = SpeedConfig(fold_batch_norm=False)
OURS = {
    "finished images leave, input gradients": EXACT,
    "+ BatchNorm folded": SpeedConfig(),
    "+ channels last": SpeedConfig(fold_batch_norm=False, channels_last=True),
    "+ both": SpeedConfig(channels_last=True),
}
PLAIN, PLAIN_BF16, BF16 = "plain loop", "plain loop, bf16", "+ both, bf16"
KINDS = {
    "convolution, backward": ("convolution_backward",),
    "convolution, forward": ("convolution", "conv2d"),
    "BatchNorm": ("batch_norm",),
    "copies and layout": ("copy_", "contiguous", "clone", "index", "cat", "empty", "zero", "fill"),
    "linear, loss": ("addmm", "mm", "softmax", "nll_loss", "linear"),
    "elementwise": ("threshold", "clamp", "add", "mul", "sub", "sign", "where", "relu", "div", "neg"),
}
"""Kind -> what the name of its operators contains; the first that fits counts."""
COMPILED = {"+ both, compiled": SpeedConfig(channels_last=True, compile="inductor", bucket=8)}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time."""

    model: str = "resnet18"
    batch_size: int = 64
    threads: int = 2
    """Of every variant alike."""
    repeats: int = 5
    """Turns through all variants that are kept; one more comes first."""
    clock: Literal["wall", "processor"] = "wall"
    """processor: time of this process alone, which other programs disturb less; for one thread."""
    bf16: bool = True
    """Also in bf16 autocast, the plain loop too; slow where the CPU has no bf16 arithmetic."""
    compile: bool = False
    """Also the compiled net; compiling takes a minute or two on two cores."""
    profile: bool = False
    """Where the time goes, instead of how much it is."""
    record: str | None = None
    """Name of the file in benchmarks/records."""


def plain_attack(net: nn.Module, batch: Batch, strategy: Strategy, delta: Tensor) -> Tensor:
    """As research code commonly runs per-image strategies: every image takes part in as many steps as
    the longest attack has and is frozen by a mask; loss.backward() computes weight gradients too."""
    x, eps, size = batch.x, strategy.eps.view(-1, 1, 1, 1), strategy.step_size.view(-1, 1, 1, 1)
    delta = delta.clone().requires_grad_(True)
    for step in range(int(strategy.num_steps.max())):
        loss = nn.functional.cross_entropy(net(x + delta), batch.y)
        loss.backward()
        assert delta.grad is not None
        moving = (strategy.num_steps > step).view(-1, 1, 1, 1)
        moved = torch.clamp(delta.detach() + size * delta.grad.sign(), -eps, eps)
        moved = torch.clamp(moved, -x, 1 - x)
        delta.data = torch.where(moving, moved, delta.detach())
        delta.grad.zero_()
    net.zero_grad()
    return (x + delta).detach()


def make_case(options: Options) -> tuple[Batch, Strategy]:
    """Random images and strategies; time does not depend on what is in an image."""
    count = options.batch_size
    rng = torch.Generator().manual_seed(0)
    batch = Batch(
        x=torch.rand(count, 3, 32, 32, generator=rng),
        y=torch.randint(0, 10, (count,), generator=rng),
        index=torch.arange(count),
        global_size=count,
    )

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (count,), generator=rng)

    # Every step count equally often: a lucky draw would move the figures by a tenth.
    num_steps = (3 + torch.arange(count) * 12 // count)[torch.randperm(count, generator=rng)]
    strategy = Strategy(eps=draw(3, 15) / 255, num_steps=num_steps, step_size=draw(1, 5) / 255)
    return batch, strategy


def make_net(options: Options, speed: SpeedConfig, precision: str = "fp32") -> nn.Module:
    """The same weights in every variant."""
    torch.manual_seed(0)
    net = build_classifier(
        options.model,
        num_classes=10,
        image_shape=(3, 32, 32),
        precision=precision,
        channels_last=speed.channels_last,
    )
    return net.eval()


def our_attack(
    options: Options, speed: SpeedConfig, batch: Batch, strategy: Strategy, precision: str = "fp32"
) -> Callable[[], Tensor]:
    """The training attack as a round runs it, the copy of the weights included."""
    net, view = make_net(options, speed, precision), AttackView(speed)

    def run() -> Tensor:
        return attack_batch(
            view(net, batch.x),
            batch,
            strategy,
            RandomKey.of(0),
            loss="ce",
            start_kind="uniform",
            bucket=speed.bucket,
        )

    return run


def measure(options: Options) -> dict[str, Any]:
    """Seconds of every variant and repeat, medians, and speed relative to the plain loop."""
    batch, strategy = make_case(options)
    start = torch.zeros_like(batch.x)

    def plain(precision: str) -> Callable[[], Tensor]:
        net = make_net(options, EXACT, precision)
        return lambda: plain_attack(net, batch, strategy, start)

    variants = {PLAIN: plain("fp32")}
    chosen = OURS | (COMPILED if options.compile else {})
    variants |= {name: our_attack(options, speed, batch, strategy) for name, speed in chosen.items()}
    if options.bf16:
        variants[PLAIN_BF16] = plain("bf16")
        variants[BF16] = our_attack(options, OURS["+ both"], batch, strategy, "bf16")
    now = time.perf_counter if options.clock == "wall" else time.process_time

    def timed(run: Callable[[], Tensor]) -> float:
        began = now()
        run()
        return now() - began

    seconds = in_turn({name: partial(timed, run) for name, run in variants.items()}, options.repeats)
    return {
        name: {
            "seconds": values,
            "median": statistics.median(values),
            "speedup": ratio(seconds[PLAIN], values),
        }
        for name, values in seconds.items()
    }


def seconds_by_kind(run: Callable[[], Any]) -> dict[str, float]:
    """Self seconds of the operators of a run, by kind."""
    with profiler(activities=[ProfilerActivity.CPU]) as seen:
        run()
    found = dict.fromkeys([*KINDS, "rest"], 0.0)
    for event in seen.key_averages():
        kind = next(
            (kind for kind, parts in KINDS.items() if any(part in event.key for part in parts)), "rest"
        )
        found[kind] += event.self_cpu_time_total / 1e6
    return found


def profile(options: Options) -> dict[str, Any]:
    """Seconds by kind of the plain loop (before) and of ours (after): every turn, and medians."""
    batch, strategy = make_case(options)
    net, start = make_net(options, EXACT), torch.zeros_like(batch.x)
    runs = {
        "before": lambda: plain_attack(net, batch, strategy, start),
        "after": our_attack(options, OURS["+ both"], batch, strategy),
    }
    turns = in_turn({name: partial(seconds_by_kind, run) for name, run in runs.items()}, options.repeats)
    medians = {
        name: {kind: statistics.median(turn[kind] for turn in found) for kind in found[0]}
        for name, found in turns.items()
    }
    return {"turns": turns, "seconds": medians}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    steps = make_case(options)[1].num_steps
    record: dict[str, Any] = {**provenance(), "settings": asdict(options)}
    if options.profile:
        record |= profile(options)
        print(record["seconds"])
    else:
        record |= {"mean_steps": float(steps.double().mean()), "longest": int(steps.max())}
        record["variants"] = measure(options)
        for name, found in record["variants"].items():
            print(f"{name:40} {found['median']:8.2f} s   {found['speedup']:5.2f}x")
    write_record(options.record, record)


if __name__ == "__main__":
    main()
