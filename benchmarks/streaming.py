"""A stream against the same images in memory: throughput and peak memory, on generated shards.

    python -m benchmarks.streaming --out benchmarks/records/streaming_cpu.json

Rounds of PGD-AT alternate between the two paths in one process, so that both meet the same load of the
machine; ``seconds`` are wall-clock seconds a run of rounds. Peak memory is that of a process of its
own for each path: VmHWM after the batches of half an epoch, less what it held after eight images.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from envs.build import build_game
from lasat_ray.checkpoint import write_atomically
from lasat_ray.data import Batches, Reading, load_dataset
from lasat_ray.folder import provenance
from lasat_ray.learners import LearnerContext, make_learner
from lasat_ray.recipes import get_recipe
from lasat_ray.round import play_round
from lasat_ray.world import World

SIDE, PER_FILE, PER_GROUP = 32, 10_000, 500


def generate(folder: Path, count: int) -> None:
    """``count`` JPEG images of blurred noise, 10 classes, in shards; 100 of them as test images."""
    rng = np.random.default_rng(0)

    def blob() -> bytes:
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        out = io.BytesIO()
        small.resize((SIDE, SIDE)).save(out, "JPEG")
        return out.getvalue()

    def write(name: str, rows: int) -> None:
        column = pa.array([{"bytes": blob(), "path": None} for _ in range(rows)])
        table = pa.table({"image": column, "label": rng.integers(0, 10, rows)})
        pq.write_table(table, folder / name, row_group_size=PER_GROUP, compression="none")

    for first in range(0, count, PER_FILE):
        write(f"train-{first // PER_FILE:05d}.parquet", min(PER_FILE, count - first))
    write("test-0.parquet", 100)


def peak_growth(spelling: str, window: int) -> int:
    """Bytes by which half an epoch's batches raise this process's largest memory."""
    place = spelling.partition(":")[2]
    load_dataset(f"parquet:{place}", root="~", max_train=8, max_test=None, seed=0)  # what reading imports
    before = _peak()
    images = load_dataset(spelling, root="~", max_train=None, max_test=None, seed=0).train
    batches = Batches(
        images,
        batch_size=64,
        seed=0,
        world=World(),
        device="cpu",
        dtype=torch.float32,
        augment=None,
        reading=Reading(window),
    )
    for round in range(batches.rounds_per_epoch // 2):
        batches.batch(round)
    return _peak() - before


def _peak() -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def seconds_a_run(
    spellings: dict[str, str], window: int, repeats: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of ``rounds`` rounds of each path, in turn, after one run that is not counted."""
    torch.set_num_threads(1)
    base = get_recipe("cifar10-cpu").config
    games = {}
    for name, spelling in spellings.items():
        data = dataclasses.replace(base.data, max_train=None, stream_window=window)
        config = dataclasses.replace(
            base, strategy="fixed", method="pgd-at", model="small_cnn", batch_size=64
        )
        config = dataclasses.replace(config, dataset=spelling, data=data)
        dataset = load_dataset(spelling, root="~", max_train=None, max_test=None, seed=0)
        env = build_game(config, dataset.train, 10, world=World(), device=torch.device("cpu"))
        context = LearnerContext(
            space=env.space,
            image_shape=dataset.image_shape,
            config=config,
            world=World(),
            device=torch.device("cpu"),
        )
        games[name] = env, make_learner(context)
    seconds: dict[str, list[float]] = {name: [] for name in games}
    for _ in range(repeats + 1):
        for name, (env, learner) in games.items():
            began = time.perf_counter()
            for _ in range(rounds):
                play_round(env, learner)
            seconds[name].append(time.perf_counter() - began)
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=16, help="rounds a run; 16 are one window")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # how this command asks a process of its own
    options = parser.parse_args()
    if options.peak:
        print(peak_growth(options.peak, options.window))
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), options.images)
        spellings = {"memory": f"parquet:{folder}", "stream": f"stream:{folder}"}
        ask = [sys.executable, "-m", "benchmarks.streaming", "--window", str(options.window), "--peak"]
        peaks = {
            name: int(subprocess.run([*ask, spelling], check=True, capture_output=True, text=True).stdout)
            for name, spelling in spellings.items()
        }
        seconds = seconds_a_run(spellings, options.window, options.repeats, options.rounds)
    told = {name: value for name, value in vars(options).items() if name not in ("out", "peak")}
    ratios = [m / s for m, s in zip(seconds["memory"], seconds["stream"], strict=True)]
    record: dict[str, Any] = {
        **provenance(),
        "settings": told,
        "decoded_bytes": options.images * 3 * SIDE * SIDE,
        "peak_growth_bytes": peaks,
        "seconds": seconds,
        "stream_over_memory_throughput": statistics.median(ratios),
    }
    text = json.dumps(record, indent=2) + "\n"
    if options.out:
        write_atomically(options.out, text.encode())
    print(text)


if __name__ == "__main__":
    main()
