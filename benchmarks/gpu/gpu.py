"""What one GPU does with training rounds: throughput, share of its matrix rate, what each setting gave.

``python -m benchmarks.gpu.gpu --record NAME`` needs one CUDA device, no Ray and no network, and stays
within ``--budget-seconds``. The record is written anew after every measurement, so that whatever
stops the program leaves what was measured. ``--tiny --device cpu`` tries all of it in a minute.

Sections: correctness (float64 attack against the CPU and against golden vectors, repeated runs equal
in every bit), the card's own bf16 matrix rate, then rounds of PGD-AT and LAS-AT (k = 40) on a
ResNet-18 and a WRN-34-10 with one setting after the other switched on, and larger batches.
TFLOP/s count the cost model's passes only, so work that a setting wastes lowers them; their share is of the
card's own measured rate. A section that fails is told in the record, and by the exit status.
"""

from __future__ import annotations

import statistics
import time
import warnings
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.gpu_bench import Bench, Options, make_game, model_names, round_config
from benchmarks.gpu.gpu_checks import correctness
from lasat_ray.config import SpeedConfig, TrainConfig
from lasat_ray.models import build_classifier
from lasat_ray.training.round import play_round


def forward_flops(model: str) -> float:
    """Floating-point operations of one forward pass of one image, multiply and add counted as two."""
    with torch.device("meta"):
        net = build_classifier(model, num_classes=10, image_shape=(3, 32, 32))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.eval()(torch.zeros(1, 3, 32, 32, device="meta"))
    return float(counter.get_total_flops())


def throughput(bench: Bench, config: TrainConfig) -> dict[str, Any]:
    """img/s, TFLOP/s and memory of rounds. The warm-up goes through a rewarded round, which compiles and
    records graphs of its own; what is timed is whole multiples of k rounds, with their share of such."""
    env, learner = make_game(bench, config)
    size = config.update_interval if config.learns else (1 if bench.options.tiny else 20)
    began = time.perf_counter()
    for _ in range(max(size, 1 if bench.options.tiny else 8)):
        play_round(env, learner)
    bench.wait()
    warm = time.perf_counter() - began
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    steps, rounds, blocks = torch.zeros((), device=bench.device, dtype=torch.float64), 0, list[float]()
    while sum(blocks) < bench.options.seconds and rounds < (1 if bench.options.tiny else 10_000):
        began = time.perf_counter()
        for _ in range(size):
            steps += play_round(env, learner).sums["num_steps"]
        bench.wait()
        blocks.append(time.perf_counter() - began)
        rounds += size
    images = rounds * config.batch_size
    rewarded = config.learns
    share = rewarded / config.update_interval  # of rounds that pay for a reference attack and a policy step
    looks = (1 + 3 * share) * images * forward_flops(config.strategy_model) if rewarded else 0.0
    passes = 2 * float(steps) + 3 * images + 22 * images * share
    flops = passes * forward_flops(config.model) + looks
    per_second = images / sum(blocks)
    tflops = flops / sum(blocks) / 1e12
    return {
        "img_per_second": per_second,
        "cifar10_epoch_seconds": 50_000 / per_second,
        "tflops": tflops,
        "share_of_measured_matmul": tflops / bench.record["sections"]["matmul"].get("tflops", float("nan")),
        "passes_per_image": passes / images,
        "rounds": rounds,
        "block_img_per_second_median": statistics.median(
            rounds / len(blocks) * config.batch_size / s for s in blocks
        ),
        "warm_up_seconds": warm,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if bench.on_gpu else None,
        "config": {"model": config.model, "precision": config.precision, "batch_size": config.batch_size}
        | asdict(config.speed),
    }


def matmul_rate(bench: Bench) -> dict[str, Any]:
    """TFLOP/s of one large bf16 product: what the card's matrix units give in practice."""
    size = 256 if bench.options.tiny else 8192
    a, b = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for turn in range(12):
        bench.wait()
        began = time.perf_counter()
        a @ b
        bench.wait()
        if turn > 1:
            times.append(time.perf_counter() - began)
    return {"size": size, "tflops": 2 * size**3 / statistics.median(times) / 1e12}


def host_syncs(bench: Bench) -> dict[str, Any]:
    """How often a LAS round makes the host wait, as CUDA's own watch tells; and the data's share."""
    config = round_config(bench.options, model_names(bench.options)[0], "las-at", SpeedConfig(), "bf16")
    env, learner = make_game(bench, config)
    play_round(env, learner)
    found: dict[str, Any] = {}
    if bench.on_gpu:
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            play_round(env, learner)
        torch.cuda.set_sync_debug_mode("default")
        places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
        found |= {"host_syncs_a_round": len(places), "places": places[:20]}
    for name, work in (("round", lambda: play_round(env, learner)), ("data", lambda: env.batches.batch(3))):
        bench.wait()
        began = time.perf_counter()
        for _ in range(2 if bench.options.tiny else 20):
            work()
        bench.wait()
        found[f"{name}_seconds"] = time.perf_counter() - began
    found["data_share"] = found["data_seconds"] / found["round_seconds"]
    return found


def ladder(options: Options) -> list[tuple[str, str, SpeedConfig]]:
    """(name, precision, settings), each with everything before it."""
    exact = SpeedConfig(fold_batch_norm=False)
    last = replace(exact, channels_last=True)
    folded = replace(last, fold_batch_norm=True)
    compiler = "eager" if options.tiny else "inductor"
    steps = [
        ("fp32", "fp32", exact),
        ("bf16", "bf16", exact),
        ("+ channels last", "bf16", last),
        ("+ BatchNorm folded", "bf16", folded),
        ("+ compiled", "bf16", replace(folded, compile=compiler, bucket=16)),  # type: ignore[arg-type]
    ]
    if options.device == "cuda":
        steps.append(("+ CUDA graphs", "bf16", replace(folded, compile="cudagraphs", bucket=16)))
    return steps


def run(bench: Bench) -> None:
    options = bench.options
    bench.section("matmul", lambda: matmul_rate(bench))
    bench.section("correctness", lambda: correctness(bench))
    bench.section("host", lambda: host_syncs(bench))
    small, large = model_names(options)
    steps = ladder(options)
    for method in ("las-at", "pgd-at"):
        for name, precision, speed in steps[:4]:
            config = round_config(options, small, method, speed, precision)
            bench.section(f"{small} {method} {name}", partial(throughput, bench, config))
    # Compiling takes longest, so the plainer figures of the large net come first.
    for method, (name, precision, speed) in (("las-at", steps[3]), ("pgd-at", steps[3])):
        config = round_config(options, large, method, speed, precision)
        bench.section(f"{large} {method} {name}", partial(throughput, bench, config))
    for name, precision, speed in steps[4:]:
        for method in ("las-at", "pgd-at"):
            config = round_config(options, small, method, speed, precision)
            bench.section(f"{small} {method} {name}", partial(throughput, bench, config), needs=60.0)
    for size in (8,) if options.tiny else (256, 512, 1024):
        config = replace(round_config(options, small, "las-at", steps[3][2], "bf16"), batch_size=size)
        bench.section(f"{small} las-at batch {size}", partial(throughput, bench, config))
    name, precision, speed = steps[-1]
    config = round_config(options, large, "las-at", speed, precision)
    bench.section(f"{large} las-at {name}", partial(throughput, bench, config), needs=90.0)


def main() -> None:
    bench = Bench(tyro.cli(Options, description=__doc__))
    run(bench)
    bench.end("gpu")


if __name__ == "__main__":
    main()
