"""Two real processes that attack and train together: how much the slower one takes longer."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

import lasat_ray.env.attack_strategy as game
from benchmarks.common import make_round, random_images
from benchmarks.scaling.scaling_model import balanced, step_counts, uniform
from lasat_ray.process_group import ProcessGroup
from lasat_ray.recipes import get_recipe
from lasat_ray.training.round import play_round
from lasat_ray.types import Batch, Strategy


def attack_worker(rank: int, rounds: int, folder: str) -> None:
    """One of two processes: steps and processor seconds of each round's attack, as drawn, then balanced."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    meet, patience = f"file://{folder}/meet", timedelta(seconds=300)
    dist.init_process_group("gloo", rank=rank, world_size=2, init_method=meet, timeout=patience)
    base = get_recipe("cifar10-cpu").config
    rounds_of: dict[str, list[tuple[int, float]]] = {}
    config = replace(base, strategy="random", batch_size=32, data=replace(base.data, max_train=None))
    attack, found = game.attack_batch, []

    def timed(net: Any, batch: Batch, strategy: Strategy, **kwargs: Any) -> Tensor:
        began = time.process_time()
        x_adv = attack(net, batch, strategy, **kwargs)
        found.append((int(strategy.num_steps.sum()), time.process_time() - began))
        return x_adv

    with patch.object(game, "attack_batch", timed):
        for balance in (False, True):
            chosen = replace(config, speed=replace(config.speed, balance=balance))
            env, learner = make_round(chosen, random_images(512), group=ProcessGroup(rank, 2))
            found.clear()
            for _ in range(rounds + 2):  # the first two are not counted
                play_round(env, learner)
            rounds_of["balanced" if balance else "as drawn"] = found[2:]
    Path(folder, f"{rank}.json").write_text(json.dumps(rounds_of))
    dist.destroy_process_group()


def two_processes(rounds: int) -> dict[str, Any]:
    """What both took round by round, and by how much the larger exceeds the mean, averaged over rounds."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(attack_worker, args=(rounds, folder), nprocs=2)
        both = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(2)]
    found: dict[str, Any] = {}
    for kind in both[0]:
        found[kind] = {}
        for what, place in (("steps", 0), ("seconds", 1)):
            pairs = [(a[place], b[place]) for a, b in zip(both[0][kind], both[1][kind], strict=True)]
            excess = statistics.fmean(2 * max(pair) / sum(pair) - 1 for pair in pairs)
            found[kind] |= {what: pairs, f"{what}_excess": excess}
    drawn = step_counts(uniform(), 2000, 2, 16)
    for kind, images_RWS in (("as drawn", drawn), ("balanced", balanced(drawn)[0])):
        load_RW = images_RWS @ np.arange(drawn.shape[-1])
        found[kind]["expected_excess"] = float((load_RW.max(1) / load_RW.mean(1)).mean() - 1)
    return found
