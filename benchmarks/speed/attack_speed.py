"""How fast the batch's adversarial images are made, beside the loop that research code runs.

``python -m benchmarks.speed.attack_speed --record NAME``: a ResNet-18 at 32x32, 64 images, strategies
drawn uniformly from eps 3-15, steps 3-14, step size 1-5 (/255). Every variant gets the same images
and strategies in turn, in one process with the same number of threads; the record holds all repeats.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

from lasat_ray.attacks import attack_batch
from lasat_ray.config import SpeedConfig
from lasat_ray.models import AttackView, build_classifier
from lasat_ray.rng import RandomKey
from lasat_ray.runs.folder import provenance
from lasat_ray.types import Batch, Strategy

RECORDS = Path(__file__).parents[1] / "records"
EXACT = SpeedConfig(fold_batch_norm=False)
OURS = {
    "finished images leave, input gradients": EXACT,
    "+ BatchNorm folded": SpeedConfig(),
    "+ channels last": SpeedConfig(fold_batch_norm=False, channels_last=True),
    "+ both": SpeedConfig(channels_last=True),
}
PLAIN, PLAIN_BF16, BF16 = "plain loop", "plain loop, bf16", "+ both, bf16"
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
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    now = time.perf_counter if options.clock == "wall" else time.process_time
    for turn in range(options.repeats + 1):
        for name, run in variants.items():
            began = now()
            run()
            if turn:
                seconds[name].append(now() - began)
    return {
        name: {
            "seconds": values,
            "median": statistics.median(values),
            "speedup": statistics.median(a / b for a, b in zip(seconds[PLAIN], values, strict=True)),
        }
        for name, values in seconds.items()
    }


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    steps = make_case(options)[1].num_steps
    record: dict[str, Any] = {
        **provenance(),
        "settings": vars(replace(options)),
        "mean_steps": float(steps.double().mean()),
        "longest": int(steps.max()),
        "variants": measure(options),
    }
    for name, found in record["variants"].items():
        print(f"{name:40} {found['median']:8.2f} s   {found['speedup']:5.2f}x")
    if options.record:
        (RECORDS / f"{options.record}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
