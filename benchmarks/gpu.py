"""What one GPU does with training rounds: throughput, share of its matrix rate, what each setting gave.

``python benchmarks/gpu.py --record NAME`` needs one CUDA device, no Ray and no network, and stays
within ``--budget-seconds``. The record is written anew after every measurement, so that whatever
stops the program leaves what was measured. ``--tiny --device cpu`` tries all of it in a minute.

Sections: correctness (float64 attack against the CPU and against golden vectors, repeated runs equal
in every bit), the card's own bf16 matrix rate, then rounds of PGD-AT and LAS-AT (k = 40) on a
ResNet-18 and a WRN-34-10 with one setting after the other switched on, and larger batches.
TFLOP/s count the cost model's passes only, so work that a setting wastes lowers them.
"""

from __future__ import annotations

import json
import statistics
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from envs.attack_strategy import AttackStrategyVectorEnv
from envs.build import build_game
from lasat_ray.attacks import attack_batch
from lasat_ray.config import AttackConfig, LossConfig, OptimConfig, PolicyConfig, SpeedConfig, TrainConfig
from lasat_ray.data import Images, load_dataset
from lasat_ray.folder import provenance
from lasat_ray.learners import Learner, LearnerContext, make_learner
from lasat_ray.models import AttackView, build_classifier
from lasat_ray.recipes.published import LAS_AT_GRID
from lasat_ray.rng import Stream
from lasat_ray.round import play_round
from lasat_ray.types import Batch, Strategy
from lasat_ray.world import World

RECORDS = Path(__file__).parent / "records"
ROOM = 20.0  # seconds kept back for writing and leaving


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure, and for how long."""

    device: str = "cuda"
    """cuda or cpu."""
    dataset: str | None = None
    """As for lasat_ray.train, for example parquet:PATH; None makes 50,000 random images."""
    budget_seconds: float = 450.0
    """No measurement is begun after this."""
    batch_size: int = 128
    """Images a round, the published runs' size."""
    seconds: float = 4.0
    """Measured time of one setting, after its warm-up."""
    peak_tflops: float = 989.0
    """The data sheet's dense bf16 rate; 989 for H100 and H200."""
    tiny: bool = False
    """Small nets, two rounds each: does the program work?"""
    out: Path | None = None
    """The record's file; None means benchmarks/records/RECORD.json."""
    record: str = "gpu"
    """Name of the file in benchmarks/records."""


class Bench:
    """The record, the clock, and what all measurements share."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.began = time.perf_counter()
        self.file = options.out or RECORDS / f"{options.record}.json"
        told = {**asdict(options), "out": None, "dataset": options.dataset and "given"}
        self.record: dict[str, Any] = {**provenance(), "settings": told, "sections": {}}
        if self.on_gpu:
            properties = torch.cuda.get_device_properties(self.device)
            self.record["device"] = {"name": properties.name, "memory_gib": properties.total_memory / 2**30}
        self.images, self.classes = self._images()

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds in which something new may begin."""
        return self.options.budget_seconds - ROOM - (time.perf_counter() - self.began)

    def _images(self) -> tuple[Images, int]:
        if self.options.dataset:
            dataset = load_dataset(self.options.dataset, root="~", max_train=None, max_test=None, seed=0)
            return dataset.train, dataset.num_classes
        count = 256 if self.options.tiny else 50_000
        rng = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=rng)
        return Images(x, torch.arange(count) % 10), 10

    def section(self, name: str, work: Callable[[], Any], needs: float = 15.0) -> None:
        """Run ``work`` if there is time; its result, or why there is none, goes to the record at once."""
        if self.left < needs:
            found: Any = {"skipped": f"{self.left:.0f} s left"}
        else:
            began = time.perf_counter()
            try:
                found = work()
            except Exception as error:  # one setting that fails must not take the others along
                found = {"error": f"{type(error).__name__}: {error}"[:600]}
                traceback.print_exc()
            found["section_seconds"] = round(time.perf_counter() - began, 2)
        self.record["sections"][name] = found
        self.record["total_seconds"] = round(time.perf_counter() - self.began, 1)
        self.file.write_text(json.dumps(self.record, indent=1) + "\n")
        print(f"{name}: {json.dumps(found)[:300]}", flush=True)
        if self.on_gpu:
            torch.cuda.empty_cache()

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def round_config(
    options: Options, model: str, method: str, speed: SpeedConfig, precision: str
) -> TrainConfig:
    """PGD-AT and LAS-AT as Table 1 runs them; the strategy net is a ResNet-18."""
    learned = method == "las-at"
    return TrainConfig(
        dataset="synthetic",
        model=model,
        strategy_model="small_cnn" if options.tiny else "resnet18",
        strategy="learned" if learned else "fixed",
        update_interval=40,
        batch_size=4 if options.tiny else options.batch_size,
        precision=precision,  # type: ignore[arg-type]
        attack=AttackConfig(grid=LAS_AT_GRID if learned else {}),
        loss=LossConfig(label_smoothing=0.3 if learned else 0.0),
        policy=PolicyConfig(lr=1e-4, baseline="none"),
        optim=OptimConfig(lr=0.01, schedule="constant"),
        speed=speed,
    )


def make_game(bench: Bench, config: TrainConfig) -> tuple[AttackStrategyVectorEnv, Learner]:
    """The trainer's env and learner, without folder, validation or checkpoints."""
    torch.manual_seed(0)
    env = build_game(config, bench.images, bench.classes, world=World(), device=bench.device)
    context = LearnerContext(
        space=env.space, image_shape=(3, 32, 32), config=config, world=World(), device=bench.device
    )
    return env, make_learner(context)


def forward_flops(model: str) -> float:
    """Floating-point operations of one forward pass of one image, multiply and add counted as two."""
    with torch.device("meta"):
        net = build_classifier(model, num_classes=10, image_shape=(3, 32, 32))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.eval()(torch.zeros(1, 3, 32, 32, device="meta"))
    return float(counter.get_total_flops())


def throughput(bench: Bench, config: TrainConfig) -> dict[str, Any]:
    """img/s, TFLOP/s and memory of rounds, after a warm-up that compiles and records what is needed."""
    env, learner = make_game(bench, config)
    began = time.perf_counter()
    for _ in range(1 if bench.options.tiny else 8):
        play_round(env, learner)
    bench.wait()
    warm = time.perf_counter() - began
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    steps, rounds, blocks = torch.zeros((), device=bench.device, dtype=torch.float64), 0, []
    while sum(blocks) < bench.options.seconds and rounds < (1 if bench.options.tiny else 10_000):
        size = 1 if bench.options.tiny else 20
        began = time.perf_counter()
        for _ in range(size):
            steps += play_round(env, learner).sums["num_steps"]
        bench.wait()
        blocks.append(time.perf_counter() - began)
        rounds += size
    images = rounds * config.batch_size
    rewarded = config.strategy == "learned"
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
        "share_of_data_sheet": tflops / bench.options.peak_tflops,
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


def attack_case(device: torch.device, speed: SpeedConfig) -> torch.Tensor:
    """A float64 attack on a small ResNet, the same weights and numbers on any device."""
    torch.manual_seed(0)
    net = build_classifier("resnet18-4", num_classes=10, image_shape=(3, 32, 32), precision="fp64")
    net.to(device)
    count, rng = 12, torch.Generator().manual_seed(0)
    batch = Batch(
        x=torch.rand(count, 3, 32, 32, generator=rng, dtype=torch.float64).to(device),
        y=(torch.arange(count) % 10).to(device),
        index=torch.arange(count, device=device),
        global_size=count,
    )
    full = batch.x.new_ones(count)
    steps = (3 + torch.arange(count) % 12).to(device)
    strategy = Strategy(eps=full * 8 / 255, num_steps=steps, step_size=full * 2 / 255)
    view = AttackView(speed)(net, batch.x)
    x_adv = attack_batch(
        view, batch, strategy, Stream.of(0), loss="ce", start_kind="uniform", bucket=speed.bucket
    )
    return x_adv.cpu()


def correctness(bench: Bench) -> dict[str, Any]:
    """Largest differences of attacks; whether a repeated run gives the same bits."""
    exact = SpeedConfig(fold_batch_norm=False)
    ours = attack_case(bench.device, exact)
    others = {
        "float64_attack_from_cpu": attack_case(torch.device("cpu"), exact),
        "float64_attack_with_bucket": attack_case(bench.device, replace(exact, bucket=4)),
        "float64_attack_folded": attack_case(bench.device, SpeedConfig()),
    }
    return {
        **{name: float((ours - x_adv).abs().max()) for name, x_adv in others.items()},
        "golden_vectors": golden_difference(bench.device),
        "repeated_fp32_run_equal": repeated(bench, "fp32"),
        "repeated_bf16_run_equal": repeated(bench, "bf16"),
    }


def golden_difference(device: torch.device) -> float | str:
    """Largest difference from the published code's attack (tests/golden), float64."""
    try:
        from tests.golden_nets import load_tiny
        from tests.helpers import golden
    except ImportError as error:
        return f"tests are not here ({error})"
    case = golden("las_attack")
    weights = {name: case[name].numpy() for name in case if name.startswith("net.")}
    x, y = case["x"].to(device), case["y"].to(device)
    strategy = Strategy(
        eps=case["epsilon_255"].double().to(device) / 255,
        num_steps=case["iters"].to(device),
        step_size=case["step_255"].double().to(device) / 255,
    )
    batch = Batch(x=x, y=y, index=torch.arange(len(y), device=device), global_size=len(y))
    net = load_tiny(weights, "net.").to(device)
    x_adv = attack_batch(net, batch, strategy, Stream.of(0), loss="ce", start_kind="zero")
    return float((x_adv.cpu() - case["x_adv_zero"]).abs().max())


def repeated(bench: Bench, precision: str) -> bool:
    """A few LAS rounds twice from the same seed: are all weights equal bit for bit?"""
    nets = []
    for _ in range(2):
        config = round_config(
            bench.options, model_names(bench.options)[0], "las-at", SpeedConfig(), precision
        )
        env, learner = make_game(bench, replace(config, update_interval=2))
        for _ in range(2 if bench.options.tiny else 5):
            play_round(env, learner)
        nets.append([p.detach().cpu() for p in env.net.parameters()])
    return all(torch.equal(a, b) for a, b in zip(*nets, strict=True))


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


def model_names(options: Options) -> tuple[str, str]:
    return ("resnet18-8", "wrn-10-1") if options.tiny else ("resnet18", "wrn-34-10")


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
            bench.section(f"{small} {method} {name}", lambda config=config: throughput(bench, config))
    # Compiling takes longest, so the plainer figures of the large net come first.
    for method, (name, precision, speed) in (("las-at", steps[3]), ("pgd-at", steps[3])):
        config = round_config(options, large, method, speed, precision)
        bench.section(f"{large} {method} {name}", lambda config=config: throughput(bench, config))
    for name, precision, speed in steps[4:]:
        for method in ("las-at", "pgd-at"):
            config = round_config(options, small, method, speed, precision)
            bench.section(
                f"{small} {method} {name}", lambda config=config: throughput(bench, config), needs=60.0
            )
    for size in (8,) if options.tiny else (256, 512, 1024):
        config = replace(round_config(options, small, "las-at", steps[3][2], "bf16"), batch_size=size)
        bench.section(f"{small} las-at batch {size}", lambda config=config: throughput(bench, config))
    name, precision, speed = steps[-1]
    config = round_config(options, large, "las-at", speed, precision)
    bench.section(f"{large} las-at {name}", lambda: throughput(bench, config), needs=90.0)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.device == "cuda":
        torch.backends.cudnn.deterministic = True  # what a training run sets
    run(Bench(options))


if __name__ == "__main__":
    main()
