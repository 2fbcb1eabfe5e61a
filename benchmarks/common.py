"""What the measurements share: records, images of noise, rounds without a trainer, cases in turn."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lasat_ray.config import TrainConfig
from lasat_ray.data import Images, thread_prefetch
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.env.build import build_round
from lasat_ray.learners import Learner
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.folder import provenance

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
CPU = torch.device("cpu")
ALONE = ProcessGroup()


def read_record(name: str) -> dict[str, Any]:
    """The record of that name, without its ending, under ``records``."""
    return json.loads((RECORDS / f"{name}.json").read_text())


def write_record(name: str | None, record: dict[str, Any]) -> None:
    """Write a record under ``records``; nothing where no name is given."""
    if name:
        file = RECORDS / f"{name.removesuffix('.json')}.json"
        file.write_text(json.dumps(record, indent=1) + "\n")


def made_by(script: str, *more: str) -> dict[str, Any]:
    """What a study's record begins with: its command, commit and versions."""
    facts = provenance()
    told = {name: facts[name] for name in ("commit", "dirty", "python", "packages")}
    return {"command": [script, *more], **told}


def random_images(count: int, side: int = 32) -> Images:
    """Noise [count,3,side,side], ten classes in turn, the same in every call: for measurements that no
    image's content can change."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=rng)
    return Images(x, torch.arange(count) % 10)


def make_round(
    config: TrainConfig,
    images: Any,
    num_classes: int = 10,
    *,
    group: ProcessGroup = ALONE,
    device: torch.device = CPU,
    prefetch: Any = thread_prefetch,
) -> tuple[AttackStrategyVectorEnv, Learner]:
    """The trainer's env and learner, without folder, validation or checkpoints; the same weights in every
    call."""
    torch.manual_seed(0)
    return build_round(config, images, num_classes, group=group, device=device, prefetch=prefetch)


def in_turn(cases: Mapping[str, Callable[[], Any]], turns: int, warm_up: int = 1) -> dict[str, list[Any]]:
    """Every case once a turn, so that all meet the same machine; the results of each, those of the first
    ``warm_up`` turns dropped."""
    found: dict[str, list[Any]] = {name: [] for name in cases}
    for _ in range(turns + warm_up):
        for name, case in cases.items():
            found[name].append(case())
    return {name: values[warm_up:] for name, values in found.items()}


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over turns of above / below."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def peak_bytes(process: int | str = "self") -> int:
    """Largest resident memory of a process so far; 0 for one that has ended."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0
