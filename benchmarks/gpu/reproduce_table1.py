"""Table 1 of the paper on one GPU: PGD-AT and LAS-AT (k = 1, 10, 20, 40, 60), ResNet-18, CIFAR-10.

    python -m benchmarks.gpu.reproduce_table1 --dataset parquet:PATH --out runs/table1

Repeat the command until it exits with 0; every call works for at most about ``--slice-seconds`` and
continues where the last one stopped, to the same bits. In this process, without Ray. Every row is
trained by its recipe, then attacked on the first 1,000 test images (clean, PGD-10, AutoAttack), its
final weights are kept in bf16 as two files below 16 MiB, and the record is written after every step.
Exit status 3: there is more to do.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor, nn

from lasat_ray.cluster.local import choose_device
from lasat_ray.config import EvalConfig, SpeedConfig, TrainConfig
from lasat_ray.evaluation import EvaluationPlan, evaluate_net
from lasat_ray.process_group import ProcessGroup
from lasat_ray.recipes import get_recipe
from lasat_ray.runs.folder import RunFolder, provenance
from lasat_ray.runs.load import load_checkpointed
from lasat_ray.training.context import RunContext
from lasat_ray.training.inputs import load_config_dataset
from lasat_ray.training.loop import Trainer

TABLE = "table1-cifar10-resnet18"
ROWS = ("las-at-k40", "pgd-at", "las-at-k1", "las-at-k10", "las-at-k20", "las-at-k60")
MORE_TO_DO = 3
FILE_BYTES = 16 * 2**20


class SliceOver(Exception):
    """Time is up; everything so far is on disk."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train, and where."""

    dataset: str = "cifar10"
    """As for lasat_ray.train, for example parquet:PATH."""
    out: Path = Path("runs/table1")
    """Folder of the runs, the weights and the record."""
    rows: tuple[str, ...] = ROWS
    """One after the other."""
    seed: int = 0
    slice_seconds: float = 500.0
    """No epoch and no attack is begun that would likely end later than this."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of the forward passes."""
    compile: Literal["none", "inductor", "cudagraphs"] = "none"
    """torch.compile; with a bucket of 16 images."""
    deployed: Literal["best", "last"] = "best"
    """Which net is attacked and kept: best on validation, or the last."""
    n_attacked: int = 1000
    """Test images under AutoAttack."""
    tiny: bool = False
    """Digits, two epochs, one weak attack: does the program work?"""


class Clock:
    """How much of the slice is left, and how long things took."""

    def __init__(self, seconds: float) -> None:
        self.began = self.last = time.perf_counter()
        self.seconds = seconds

    def check(self) -> None:
        """After a step: SliceOver if another like it would not fit."""
        now = time.perf_counter()
        step, self.last = now - self.last, now
        if now - self.began + 1.2 * step > self.seconds:
            raise SliceOver


def row_config(options: Options, row: str) -> TrainConfig:
    """The recipe's settings with the arithmetic of these options."""
    config = get_recipe(f"{TABLE}-{row}").config
    speed = SpeedConfig(
        channels_last=True, compile=options.compile, bucket=16 if options.compile != "none" else 0
    )
    config = replace(
        config, dataset=options.dataset, seed=options.seed, precision=options.precision, speed=speed
    )
    if not options.tiny:
        return config
    return replace(
        config,
        dataset="digits",
        model="resnet18-2",
        strategy_model="small_cnn",
        precision="fp32",
        epochs=2,
        batch_size=16,
        update_interval=1,
        data=replace(config.data, max_train=48, max_test=8, val_fraction=0.25, crop_padding=1),
        evaluation=EvalConfig(test_num_steps=(2,), val_num_steps=2),
    )


def train_row(options: Options, config: TrainConfig, folder: RunFolder, clock: Clock) -> dict[str, Any]:
    """Train until the end or the end of the slice; the summary."""
    if (summary := folder.summary()) is not None:
        return summary
    place = RunContext(
        group=ProcessGroup(),
        device=choose_device(options.device),
        folder=folder,
        after_epoch=lambda record: clock.check(),
    )
    trainer = Trainer(config, place)
    began = time.perf_counter()
    try:
        return trainer.run()
    finally:
        with open(folder.path / "slices.jsonl", "a") as file:
            told = {"seconds": time.perf_counter() - began, "rounds": trainer.env.round}
            file.write(json.dumps(told) + "\n")


def attack_row(
    options: Options, config: TrainConfig, net: nn.Module, row: Path, clock: Clock
) -> dict[str, Any]:
    """Clean, PGD-10 and AutoAttack; finished chunks are kept, so a slice may end between any two."""
    images = load_config_dataset(config).load_test()
    attacks = ("clean", "pgd-2") if options.tiny else ("clean", "pgd-10", "aa")
    plan = EvaluationPlan(
        attacks=attacks,
        eps=config.evaluation.eps,
        step_size=config.evaluation.step_size,
        n_examples=4 if options.tiny else options.n_attacked,
        chunk_size=4 if options.tiny else 100,
        sanity_examples=0,
    )

    def listen(job: Any, part: Any, known: bool) -> None:
        if not known:
            clock.check()

    clock.last = time.perf_counter()
    out = row / "evaluation"
    device = choose_device(options.device)
    report = evaluate_net(net, images, plan, out=out, device=device, announce=lambda suite: listen)
    return {name: found["accuracy"] for name, found in report["attacks"].items()} | {"n": report["n"]}


def save_in_two(net: nn.Module, stem: Path) -> list[str]:
    """The weights in bf16 (vectors stay as they are), in two files of about equal size; their names."""
    state = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    small = {k: v.to(torch.bfloat16) if v.ndim > 1 else v for k, v in state.items()}
    half, done = sum(v.nbytes for v in small.values()) / 2, 0
    parts: list[dict[str, Tensor]] = [{}, {}]
    for name, tensor in small.items():
        parts[done >= half][name] = tensor
        done += tensor.nbytes
    names = []
    for n, part in enumerate(parts, 1):
        file = stem.with_name(f"{stem.name}-weights-{n}.safetensors")
        save_file(part, file)
        assert file.stat().st_size < FILE_BYTES, f"{file} is too large to be sent"
        names.append(file.name)
    return names


def do_row(options: Options, row: str, clock: Clock, write: Callable[[dict[str, Any]], None]) -> None:
    """Train, attack and keep one row, as far as the slice reaches."""
    config, path = row_config(options, row), options.out / row
    folder = RunFolder(path) if path.exists() else RunFolder.create(path, config)
    if folder.config() != config:
        raise SystemExit(f"--out: '{path}' holds a run with other settings; choose another folder")
    reported = get_recipe(f"{TABLE}-{row}").reported
    summary = train_row(options, config, folder, clock)
    found: dict[str, Any] = {"reported": reported, "summary": summary, "config": asdict(config)}
    write(found)
    net, _ = load_checkpointed(path, which=options.deployed)
    found["weights"] = save_in_two(net, options.out / row)
    write(found)
    found["measured"] = attack_row(options, config, net, path, clock)
    write(found)


def main() -> int:
    options = tyro.cli(Options, description=__doc__)
    clock = Clock(options.slice_seconds)
    if unknown := [row for row in options.rows if row not in ROWS]:
        raise SystemExit(f"--rows: '{unknown[0]}' is no row; choose from: {', '.join(ROWS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "table1.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"rows": {}}
    record |= {
        "last_slice": provenance(),
        "torch_device": torch.cuda.get_device_name() if _gpu(options) else "cpu",
    }

    def write(row: str, found: dict[str, Any]) -> None:
        record["rows"][row] = found
        file.write_text(json.dumps(record, indent=1) + "\n")

    for row in options.rows:
        if "measured" in record["rows"].get(row, {}):
            continue
        try:
            do_row(options, row, clock, partial(write, row))
        except SliceOver:
            print(f"{row}: the slice is over; run the same command again", flush=True)
            return MORE_TO_DO
        print(f"{row}: {json.dumps(record['rows'][row]['measured'])}", flush=True)
    return 0


def _gpu(options: Options) -> bool:
    return choose_device(options.device).type == "cuda"


if __name__ == "__main__":
    sys.exit(main())
