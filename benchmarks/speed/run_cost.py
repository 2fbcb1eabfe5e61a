"""What a run costs beside the arithmetic of its rounds: Ray, start-up, size of batch and data set, memory.

``python -m benchmarks.speed.run_cost --section NAME --record FILE``:

- workers: rounds in this process with all threads, on one Ray worker, on two of one thread each, in turn
- start-up: seconds from the command line to the first recorded round, on 2 and on 4 workers in turn
- batch-size, dataset-size: processor seconds an image on one thread, the sizes in turn
- memory: largest memory of a process that trains, on data sets of several sizes

Images are random numbers. Ratios are formed turn by turn, so that what else the machine does meets all
alike; the record holds every turn.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
import tyro

from benchmarks.common import ALONE, CPU, in_turn, make_round, peak_bytes, random_images, ratio, write_record
from lasat_ray.config import DataConfig, EvalConfig, TrainConfig
from lasat_ray.data import Images
from lasat_ray.recipes import get_recipe
from lasat_ray.runs.folder import RunFolder, provenance
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from lasat_ray.training.round import play_round

ROUNDS = 4  # an epoch of the section workers, and its k: every epoch holds one rewarded round
Section = Literal["workers", "start-up", "batch-size", "dataset-size", "memory"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    section: Section
    model: str = "resnet18-16"
    """Target net of the sections workers and batch-size; the others take a small CNN."""
    batch_size: int = 64
    """Images a round, but where sizes are compared."""
    repeats: int = 3
    """Turns; where processor time is compared one more comes first."""
    epochs: int = 4
    """Of each run in workers, four rounds each; the first is not counted."""
    batch_sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    dataset_sizes: tuple[int, ...] = (1_000, 4_000, 16_000, 60_000)
    workers: tuple[int, ...] = (2, 4)
    """Of start-up."""
    record: str | None = None
    """Name of the file in benchmarks/records."""
    peak_of: str | None = None
    """How this command asks a process of its own: print the largest memory on that data set."""


def base(options: Options, **changes: Any) -> TrainConfig:
    """LAS-AT with the published grid and budgets, without validation."""
    short = {"data": DataConfig(val_fraction=0.0), "evaluation": EvalConfig(test_num_steps=(1,))}
    return replace(get_recipe("cifar10-cpu").config, **{"batch_size": options.batch_size, **short, **changes})


def write_npz(folder: Path, count: int) -> str:
    """Noise as a data set on disk, with ten test images; its spelling."""
    folder.mkdir(parents=True)
    for name, images in (("train", random_images(count)), ("test", random_images(10))):
        x = images.x.permute(0, 2, 3, 1).contiguous().numpy()
        np.savez(folder / f"{name}.npz", image=x, label=images.y.numpy())
    return f"npz:{folder}"


class Game:
    """Rounds without a trainer, in this process."""

    def __init__(self, config: TrainConfig, images: Images) -> None:
        self.config = config
        self.env, self.learner = make_round(config, images)

    def seconds_an_image(self, first: int, rounds: int) -> float:
        """Processor seconds of the rounds from ``first`` on, an image."""
        self.env.seek(first)
        began = time.process_time()
        for _ in range(rounds):
            play_round(self.env, self.learner)
        return (time.process_time() - began) / (rounds * self.config.batch_size)


def measure_batch_size(options: Options) -> dict[str, Any]:
    torch.set_num_threads(1)
    images = random_images(2 * max(options.batch_sizes))
    found = {}
    for strategy in ("fixed", "learned"):
        cases = {}
        for size in options.batch_sizes:
            game = Game(base(options, model=options.model, strategy=strategy, batch_size=size), images)
            # Whole update intervals, so that every size has the same share of rewarded rounds.
            cases[str(size)] = partial(game.seconds_an_image, 0, ROUNDS)
        found[strategy] = in_turn(cases, options.repeats)
    return {"seconds_an_image": found}


def measure_dataset_size(options: Options) -> dict[str, Any]:
    """Each turn plays over an epoch's end, where the next order is drawn: more often than in training."""
    torch.set_num_threads(1)
    config = base(options, model="small_cnn")
    cases = {}
    for count in options.dataset_sizes:
        game = Game(config, random_images(count))
        first = game.env.target.rounds_per_epoch - ROUNDS
        cases[str(count)] = partial(game.seconds_an_image, first, 2 * ROUNDS)
    found = in_turn(cases, options.repeats)
    least = str(min(options.dataset_sizes))
    return {
        "seconds_an_image": found,
        "beside_the_least": {count: ratio(values, found[least]) for count, values in found.items()},
    }


def print_peak(options: Options) -> None:
    """Two rounds of a trainer on a data set, in this fresh process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        split = DataConfig()  # with validation images, as runs have them
        config = base(options, dataset=options.peak_of or "", model=options.model, data=split)
        folder = RunFolder.create(Path(scratch) / "run", config)
        trainer = Trainer(config, RunContext(group=ALONE, device=CPU, folder=folder))
        for _ in range(2):
            trainer.play()
        print(peak_bytes())


def measure_memory(options: Options) -> dict[str, Any]:
    ask = [sys.executable, __file__, "--section", "memory", "--model", options.model]
    ask += ["--batch-size", str(options.batch_size), "--peak-of"]
    peaks = {}
    with tempfile.TemporaryDirectory() as scratch:
        for count in options.dataset_sizes:
            spelling = write_npz(Path(scratch) / str(count), count)
            told = subprocess.run([*ask, spelling], check=True, capture_output=True, text=True).stdout
            peaks[str(count)] = int(told)
            print(count, peaks[str(count)], flush=True)
    grown = np.polyfit([int(count) for count in peaks], list(peaks.values()), 1)[0]
    return {"peak_bytes": peaks, "bytes_an_image": float(grown), "image_bytes": 3 * 32 * 32}


def epoch_seconds(records: list[dict[str, Any]]) -> float:
    """Median seconds of an epoch's rounds, the first epoch left out."""
    ends = [record["train_seconds"] for record in records if record["kind"] == "epoch"]
    return statistics.median(b - a for a, b in itertools.pairwise(ends))


@contextmanager
def watching_workers(peaks: list[int]) -> Iterator[None]:
    """Inside the block the largest memory of any Ray Train worker is noted in ``peaks``."""
    done, largest = threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.5):
            for child in psutil.Process().children(recursive=True):
                try:
                    if "RayTrainWorker" in " ".join(child.cmdline()):
                        largest[0] = max(largest[0], peak_bytes(child.pid))
                except psutil.Error:  # it has just ended
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        peaks.append(largest[0])


def measure_workers(options: Options) -> dict[str, Any]:
    from lasat_ray.cluster.local import train_here
    from lasat_ray.cluster.ray_train import train_on_ray
    from lasat_ray.cluster.session import ray_session

    peaks: dict[str, list[int]] = {"1": [], "2": []}
    with tempfile.TemporaryDirectory() as scratch, ray_session(None, start_timeout=60):
        spelling = write_npz(Path(scratch) / "data", ROUNDS * options.batch_size)
        config = base(
            options, dataset=spelling, model=options.model, epochs=options.epochs, update_interval=ROUNDS
        )
        runs = iter(range(1000))

        def run(workers: int) -> float:
            folder = RunFolder.create(Path(scratch) / f"run-{next(runs)}", config)
            if workers:
                with watching_workers(peaks[str(workers)]):
                    train_on_ray(config, folder, num_workers=workers)
            else:
                train_here(config, folder, device="cpu")
            lines = folder.metrics.read_text().splitlines()
            return epoch_seconds([json.loads(line) for line in lines])

        cases = {str(n): partial(run, n) for n in (0, 1, 2)}
        found = in_turn(cases, options.repeats, warm_up=0)
    return {
        "epoch_seconds": found,
        "images": ROUNDS * options.batch_size,
        "threads_of_the_first": torch.get_num_threads(),
        "one_worker_throughput_over_in_process": ratio(found["0"], found["1"]),
        "two_workers_throughput_over_one": ratio(found["1"], found["2"]),
        "worker_peak_bytes": peaks,
    }


def seconds_to_first_round(workers: int) -> float:
    """From the start of the command to the first round in metrics.jsonl; the run then ends by itself."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        command = [sys.executable, "-m", "lasat_ray.train", "--num-workers", str(workers), "--out", str(out)]
        command += ["--epochs", "1", "--data.max-train", "160", "--data.max-test", "10"]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        found, metrics = None, out / "metrics.jsonl"
        while process.poll() is None and found is None:
            if metrics.is_file() and '"kind": "round"' in metrics.read_text():
                found = time.perf_counter() - began
            time.sleep(0.02)
        _, told = process.communicate()
        if found is None or process.returncode:
            raise RuntimeError(f"the run on {workers} workers failed: {told[-500:]}")
        return found


def measure_start_up(options: Options) -> dict[str, Any]:
    cases = {str(n): partial(seconds_to_first_round, n) for n in options.workers}
    found = in_turn(cases, options.repeats)
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {"seconds_to_first_round": found, "median": medians}


MEASURES: dict[Section, Callable[[Options], dict[str, Any]]] = {
    "workers": measure_workers,
    "start-up": measure_start_up,
    "batch-size": measure_batch_size,
    "dataset-size": measure_dataset_size,
    "memory": measure_memory,
}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.peak_of:
        print_peak(options)
        return
    record = {**provenance(), "settings": asdict(options), **MEASURES[options.section](options)}
    print(json.dumps({name: record[name] for name in record if name not in ("packages", "settings")}))
    write_record(options.record, record)


if __name__ == "__main__":
    main()
