"""Counts what a training round asks of a GPU: operations that it launches, and waits of the host.

python -m benchmarks.gpu.launches  # count, write the record

No GPU is needed: tests/support/pretended_gpu.py pretends one. A ResNet-18 of an eighth the width, 16
images, bf16; operations and waits do not depend on either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.common import random_images, read_record, write_record
from benchmarks.tables.marked import markdown
from lasat_ray.config import (
    AttackConfig,
    LossConfig,
    OptimConfig,
    PolicyConfig,
    RewardConfig,
    SpeedConfig,
    TrainConfig,
)
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.env.build import build_round
from lasat_ray.learners import Learner
from lasat_ray.process_group import ProcessGroup
from lasat_ray.recipes.paper import LAS_AT_GRID
from lasat_ray.runs.numerics import RoundStatus
from lasat_ray.training.round import play_round

if TYPE_CHECKING:
    from tests.support.pretended_card import Counts, PretendedGPU  # of the repository, not of the package

RECORD = "launches"
BEFORE = {
    "PGD-AT": (4, 1893),
    "LAS-AT k=40": (4, 2584),
    "LAS-AT k=1": (26, 5076),
    "influence k=1": (26, 6395),
    "FAT": (23, 2743),
    "GAIRAT": (14, 1984),
    "DART": (16, 944),
}
"""(waits, operations) at ca9d488, counted by a sketch of the same pretence, which counts parameter norms one
by one: 62 a gradient norm at this depth."""
_BASE = TrainConfig(
    dataset="synthetic",
    model="resnet18-8",
    strategy_model="resnet18-8",
    strategy="fixed",
    update_interval=40,
    batch_size=16,
    precision="bf16",
    policy=PolicyConfig(lr=1e-4, baseline="none"),
    optim=OptimConfig(lr=0.01, schedule="constant"),
    speed=SpeedConfig(channels_last=True),
)
_LAS = replace(
    _BASE, strategy="learned", attack=AttackConfig(grid=LAS_AT_GRID), loss=LossConfig(label_smoothing=0.3)
)
CASES: dict[str, TrainConfig] = {
    "PGD-AT": _BASE,
    "LAS-AT k=40": _LAS,
    "LAS-AT k=1": replace(_LAS, update_interval=1),
    "influence k=1": replace(_LAS, update_interval=1, reward=RewardConfig(credit="influence")),
    **{name.upper(): replace(_BASE, method=name) for name in ("fat", "gairat", "dart", "sat", "cat")},
}


def counted(name: str, *, graph: bool) -> dict[str, Any]:
    """Waits and launches of a round in its steady state, and the places of the waits; with ``graph`` PGD
    steps are CUDA graphs."""
    from tests.support.pretended_gpu import pretended_gpu  # of the repository, not of the package

    config = CASES[name]
    if graph:
        config = replace(config, speed=replace(config.speed, compile="graph"))
    torch.manual_seed(0)
    images = random_images(64)
    with pretended_gpu() as gpu:
        env, learner = build_round(config, images, 10, group=ProcessGroup(), device=torch.device("cuda"))
        counts = counted_round(env, learner, gpu, before=2)
    return {
        "waits": counts.num_waits,
        "launches": counts.num_launches,
        "places": sorted(map(str, counts.waits)),
    }


def counted_round(
    env: AttackStrategyVectorEnv, learner: Learner, gpu: PretendedGPU, *, before: int
) -> Counts:
    """What a round asks of the card after ``before`` others, played as the loop does: what a round found is
    read after the next was begun."""
    waiting: list[RoundStatus] = []

    def play() -> None:
        waiting.append(RoundStatus(play_round(env, learner), stop=False, failed=False, group=ProcessGroup()))
        if len(waiting) > 1:
            waiting.pop(0).read()

    for _ in range(before):
        play()
    with gpu.counting() as counts:
        play()
    return counts


def table(record: dict[str, Any]) -> str:
    """Waits and operations of a round, before and now, as Markdown."""
    rows = []
    for name, found in record["cases"].items():
        waits, launches = BEFORE.get(name, ("", ""))
        before = f"{launches:,}" if launches else ""
        plain, graph = found["plain"], found["graph"]
        rows.append([name, waits, plain["waits"], before, f"{plain['launches']:,}", f"{graph['launches']:,}"])
    caption = (
        f"Counted on a pretended GPU, torch {record['torch']}, not measured on a real one. "
        "`python -m benchmarks.gpu.launches`; record `benchmarks/records/launches.json`. Before: ca9d488."
    )
    heads = ["a round of", "waits before", "now", "operations before", "now", "with `--speed.compile graph`"]
    return markdown(heads, rows, caption)


def tables() -> dict[str, str]:
    """Mark -> table."""
    return {"launches": table(read_record(RECORD))}


def main() -> None:
    cases = {
        name: {"plain": counted(name, graph=False), "graph": counted(name, graph=True)} for name in CASES
    }
    write_record(RECORD, {"torch": torch.__version__, "cases": cases})


if __name__ == "__main__":
    main()
