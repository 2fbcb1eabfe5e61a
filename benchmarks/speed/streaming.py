"""Streams beside the same images in memory: throughput, and memory under a cap far below the data.

    python -m benchmarks.speed.streaming --out benchmarks/records/streaming_cpu.json

Generates shards, by default a million images, and trains in one process for each path: images in
memory (the first file's), a stream decoded by a thread, a stream decoded by Ray Data, and images
in memory beside extra images of the stream. Streaming processes have a limit on their private memory
(RLIMIT_DATA; with Ray a control group for all of Ray), below what the decoded images need; what loading
them whole does under the first limit is recorded. The processes take turns, so that all meet the
same machine. A turn begins with rounds that are not counted and use up what was decoded while others
had their turn.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import resource
import tempfile
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.common import make_round, peak_bytes, ratio
from benchmarks.speed.made_shards import first_shard, generate
from lasat_ray.config import TrainConfig
from lasat_ray.data import Prefetcher, load_dataset, thread_prefetch
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.learners import Learner
from lasat_ray.recipes import get_recipe
from lasat_ray.runs.checkpoint import write_atomically
from lasat_ray.runs.folder import provenance
from lasat_ray.training.round import play_round

SPAWN = multiprocessing.get_context("spawn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How much to stream, and how it is timed."""

    images: int = 1_000_000
    """Training images generated."""
    side: int = 48
    """Their height and width."""
    per_file: int = 10_000
    """Rows of a shard."""
    per_group: int = 250
    """Rows of a row group."""
    cap_mib: int = 1300
    """Private memory that a streaming process may have, PyTorch's own included."""
    ray_cap_mib: int = 2600
    """All processes of the Ray path together, Ray's own included (a control group's limit, pages of files
    and shared memory count); 0: none, where control groups cannot be made."""
    model: str = "mlp"
    """Target net; the smaller, the more decoding weighs."""
    batch_size: int = 64
    """Images a round."""
    window: int = 2048
    """As --data.stream-window."""
    windows: int = 2
    """Windows timed in a turn; even, because Ray Data decodes two at once."""
    threads: tuple[int, ...] = (1, 2)
    """Threads of PyTorch, one measurement each."""
    repeats: int = 4
    """Turns of each path that count."""
    out: Path | None = None
    """The record's file."""

    @property
    def rounds(self) -> int:
        """Rounds of a window."""
        return self.window // self.batch_size


def limit_memory(mib: int, together: bool = False) -> None:
    """Of this process and of each that it starts: of every one's private memory, or of all ``together``."""
    if mib and together:
        old = Path("/sys/fs/cgroup/memory")  # version 1 of control groups has a tree for memory alone
        group = (old if old.is_dir() else Path("/sys/fs/cgroup")) / f"streaming-{os.getpid()}"
        group.mkdir()
        limit = group / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")
        limit.write_text(str(mib << 20))
        (group / "cgroup.procs").write_text(str(os.getpid()))
    elif mib:
        resource.setrlimit(resource.RLIMIT_DATA, (mib << 20, mib << 20))


def player(pipe: Connection, config: TrainConfig, cap_mib: int, on_ray: bool) -> None:
    """A process that plays ``rounds`` on ``threads`` when told to; answers seconds and memory."""
    limit_memory(cap_mib, together=on_ray)
    with ExitStack() as stack:
        prefetch = ray_data(stack) if on_ray else thread_prefetch
        env, learner = make_game(config, prefetch)
        pipe.send("ready")
        while (told := pipe.recv()) is not None:
            threads, before, rounds = told
            torch.set_num_threads(threads)
            for _ in range(before):
                play_round(env, learner)
            began = time.perf_counter()
            for _ in range(rounds):
                play_round(env, learner)
            pipe.send({"seconds": time.perf_counter() - began, "peak": peaks(on_ray)})


def ray_data(stack: ExitStack) -> Prefetcher:
    """Ray for as long as the stack stands, with a small object store; what decodes on it."""
    from lasat_ray.cluster.prefetch_on_ray import ray_data_prefetch  # late: the other paths need no Ray
    from lasat_ray.cluster.session import ray_session

    stack.enter_context(ray_session(None, 60.0, dashboard=False))
    return ray_data_prefetch


def make_game(config: TrainConfig, prefetch: Prefetcher) -> tuple[AttackStrategyVectorEnv, Learner]:
    """Env and learner on the configuration's images, all of them."""
    dataset = load_dataset(config.dataset, root="~", max_train=None, max_test=None, seed=0)
    return make_round(config, dataset.train, prefetch=prefetch)


def peaks(whole_tree: bool) -> dict[str, int]:
    """Largest resident memory (VmHWM) so far, bytes: of this process, and of the largest it started."""
    from psutil import Process

    me = Process()
    found = {"this process": peak_bytes(me.pid)}
    if whole_tree:
        found["largest other"] = max((peak_bytes(p.pid) for p in me.children(recursive=True)), default=0)
    return found


def load_whole(pipe: Connection, spelling: str, cap_mib: int) -> None:
    """What loading every image into memory says under the limit."""
    limit_memory(cap_mib)
    try:
        dataset = load_dataset(spelling, root="~", max_train=None, max_test=None, seed=0)
        pipe.send(f"loaded {len(dataset.train)} images")
    except BaseException as error:
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[-1] if str(error) else ''}".rstrip(": "))


def configs(options: Options, shards: Path, first: Path) -> dict[str, tuple[TrainConfig, bool]]:
    """Each path's configuration, and whether Ray Data decodes."""
    base = get_recipe("cifar10-cpu").config
    data = dataclasses.replace(base.data, max_train=None)
    streamed = dataclasses.replace(data, stream_window=options.window)
    # Both halves of a round have windows of their own.
    extra = dataclasses.replace(streamed, extra=f"stream:{shards}", extra_fraction=0.5)
    plain = dataclasses.replace(
        base, strategy="fixed", method="pgd-at", model=options.model, batch_size=options.batch_size
    )
    memory, stream = f"parquet:{first}", f"stream:{shards}"
    return {
        "memory": (dataclasses.replace(plain, dataset=memory, data=data), False),
        "stream, thread": (dataclasses.replace(plain, dataset=stream, data=streamed), False),
        "stream, Ray Data": (dataclasses.replace(plain, dataset=stream, data=streamed), True),
        "memory and extra stream": (dataclasses.replace(plain, dataset=memory, data=extra), False),
    }


def cap_of(options: Options, on_ray: bool) -> int:
    return options.ray_cap_mib if on_ray else options.cap_mib


class Player:
    """The parent's side of ``player``."""

    def __init__(self, config: TrainConfig, cap_mib: int, on_ray: bool) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=player, args=(theirs, config, cap_mib, on_ray))
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def play(self, threads: int, before: int, rounds: int) -> dict[str, Any]:
        self._pipe.send((threads, before, rounds))
        return self._pipe.recv()

    def end(self) -> None:
        self._pipe.send(None)
        self._process.join()


def whole_under_cap(spelling: str, cap_mib: int) -> str:
    """The answer of a process that has the limit and loads all images."""
    mine, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=load_whole, args=(theirs, spelling, cap_mib))
    process.start()
    theirs.close()
    told = mine.recv()
    process.join()
    return told


def measure(options: Options, shards: Path, first: Path) -> dict[str, Any]:
    """Seconds of every turn by threads and path, ratios to the path in memory, and peaks."""
    players = {
        name: Player(config, 0 if name == "memory" else cap_of(options, on_ray), on_ray)
        for name, (config, on_ray) in configs(options, shards, first).items()
    }
    seconds: dict[str, dict[str, list[float]]] = {}
    peak: dict[str, dict[str, int]] = {}
    for threads in options.threads:
        found = seconds[str(threads)] = {name: [] for name in players}
        for turn in range(options.repeats + 1):
            for name, one in players.items():
                before = options.rounds * (2 if "Ray" in name else 1)  # it decodes two windows at once
                told = one.play(threads, before, options.rounds * options.windows)
                peak[name] = told["peak"]
                if turn:
                    found[name].append(told["seconds"])
            print(threads, turn, {name: values[-1:] for name, values in found.items()}, flush=True)
    for one in players.values():
        one.end()
    return {"seconds": seconds, "throughput_over_memory": ratios(seconds), "peak_resident_bytes": peak}


def ratios(seconds: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Median over turns of the throughput of each path over that in memory, by threads."""
    return {
        threads: {name: ratio(paths["memory"], values) for name, values in paths.items() if name != "memory"}
        for threads, paths in seconds.items()
    }


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    record: dict[str, Any] = {**provenance(), "settings": {**dataclasses.asdict(options), "out": None}}
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch) / "shards"
        shards.mkdir()
        layout = {name: getattr(options, name) for name in ("side", "per_file", "per_group")}
        generate(shards, options.images, **layout)
        record["encoded_bytes"] = sum(file.stat().st_size for file in shards.glob("train-*"))
        record["decoded_bytes"] = options.images * 3 * options.side**2
        record["loading whole under the cap"] = whole_under_cap(f"parquet:{shards}", options.cap_mib)
        record |= measure(options, shards, first_shard(shards))
    text = json.dumps(record, indent=1) + "\n"
    if options.out:
        write_atomically(options.out, text.encode())
    print(text)


if __name__ == "__main__":
    main()
