"""What the processes of tests/test_process_group.py run: whole trainings, and each collective once."""

from __future__ import annotations

import copy
import dataclasses
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lasat_ray.attacks.balance import attack_balanced
from lasat_ray.env.build import build_game
from lasat_ray.learners import make_learner
from lasat_ray.process_group import ProcessGroup, gradients
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.context import RunContext
from lasat_ray.training.inputs import load_config_dataset
from lasat_ray.training.loop import Trainer
from lasat_ray.types import Batch, Rollout, Strategy
from tests.support.helpers import CPU, make_context, make_images, small_config

BETA_GRID = {"eps": (0.1, 0.2), "num_steps": (1.0, 2.0), "step_size": (0.1,), "trades_beta": (2.0, 6.0)}
GAMES: dict[str, dict[str, Any]] = {
    "mean baseline": {"policy__baseline": "mean", "data__flip": True},
    "leave-one-out, standardized": {"policy__baseline": "leave-one-out", "reward__standardize": True},
    "no baseline, Adam": {
        "policy__baseline": "none",
        "policy__optimizer": "adam",
        "policy__entropy_weight": 0.1,
    },
    "published reward, running baseline": {
        "policy__baseline": "running",
        "reward__mode": "reference",
        "reward__credit": "batch",
        "reward__lookahead": "copy",
        "reward__copy_weight_decay": 5e-4,
        "reward__ref_restarts": 2,
    },
    "influence, TRADES, average": {
        "method": "trades",
        "attack__grid": BETA_GRID,
        "reward__credit": "influence",
        "reward__standardize": True,
        "optim__ema_decay": 0.9,
        "optim__grad_clip": 0.5,
        "loss__label_smoothing": 0.2,
    },
    "batch norm in the strategy net": {"strategy_model": "small_cnn_bn", "learner": "a2c"},
    "greedy baseline, explored": {
        "reward__lookahead": "copy",
        "policy__baseline": "greedy",
        "policy__min_exploration": 0.1,
    },
    "PPO": {"learner": "ppo", "policy__normalize_advantage": True, "policy__target_kl": 0.5},
    "compiled, channels last, bucket": {
        "speed__compile": "eager",
        "speed__channels_last": True,
        "speed__bucket": 2,
    },
    "balanced": {
        "speed__balance": True,
        "attack__grid": {
            "eps": (0.1, 0.2),
            "num_steps": (1.0, 4.0, 9.0),
            "step_size": (0.02, 0.05),
            "augmix": (0.0, 0.5, 1.0),
            "erasing": (0.0, 0.3),
        },
    },
    "batch norm, synchronized": {
        "model": "small_cnn_bn",
        "optim__sync_batch_norm": True,
        "method": "at-awp",
        "reward__credit": "influence",
        "reward__standardize": True,
        "reward__check_every": 1,
    },
    "batch norm, stepped copy": {
        "model": "small_cnn_bn",
        "optim__sync_batch_norm": True,
        "method": "trades",
        "reward__lookahead": "copy",
    },
    "batch norm": {"model": "small_cnn_bn", "strategy_model": "small_cnn_bn"},
}
RESUMED = "leave-one-out, standardized"  # this one is also continued by two workers where one stopped
STOP = 2


def config_of(game: str) -> Any:
    """float64, 4 rounds of 7 images: shards of 3 and 4."""
    few = {
        "epochs": 1,
        "batch_size": 7,
        "data__max_train": 32,
        "data__max_test": 9,
        "evaluation__test_num_steps": (1,),
    }
    return small_config(precision="fp64", **{**few, **GAMES[game]})


def slug(game: str) -> str:
    return game.replace(" ", "_").replace(",", "")


def train(game: str, folder: RunFolder, group: ProcessGroup, stop_after: int | None = None) -> dict[str, Any]:
    """The trainer's state after the run, with the summary."""
    config = config_of(game)
    place = RunContext(group=group, device=CPU, folder=folder)
    trainer = Trainer(config, place, load_config_dataset(config))
    summary = trainer.run(stop_after)
    return {"state": trainer.state_dict(), "summary": summary}


def collectives(group: ProcessGroup) -> dict[str, Tensor]:
    """Each collective on numbers that tell the ranks apart."""
    mine = torch.tensor([1.0, 10.0]) * (group.rank + 1)
    total = group.sum(mine)
    kept = mine.clone()
    mixed = [
        torch.full((2, 2), float(group.rank + 1)),
        torch.tensor([group.rank + 5]),
        torch.ones(3).double(),
    ]
    before = [tensor.data_ptr() for tensor in mixed]
    group.sum_in_place(mixed)
    assert before == [tensor.data_ptr() for tensor in mixed]
    torch.manual_seed(group.rank)
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[1].num_batches_tracked.fill_(group.rank + 3)
    group.broadcast_from_first(net)
    net[0].weight.grad = torch.full((2, 2), float(group.rank))
    grads = gradients(net.parameters())
    group.sum_in_place(grads)
    group.barrier()
    named = {f"mixed{n}": tensor for n, tensor in enumerate(mixed)} | {
        f"grad{n}": g for n, g in enumerate(grads)
    }
    return {"total": total, "kept": kept, **named, **net.state_dict()}


def balanced(group: ProcessGroup) -> dict[str, Any]:
    """An attack that adds its steps to the image, on uneven shards of uneven work."""
    steps = torch.tensor([[9, 8, 9], [1, 2, 1, 3]][group.rank])
    place = torch.arange(len(steps)) + 3 * group.rank
    batch = Batch(x=place.double().view(-1, 1, 1, 1).expand(-1, 1, 2, 2), y=place, index=place, global_size=7)
    # What a method's own label is to an image has to travel with it.
    batch = dataclasses.replace(batch, soft_y=place.double()[:, None] / torch.tensor([7.0, 9.0]))
    strategy = Strategy(eps=place / 255, num_steps=steps, step_size=place / 1000)
    seen: dict[str, Any] = {}

    def attack(batch: Batch, strategy: Strategy) -> Tensor:
        seen.update(
            index=batch.index, soft_y=batch.soft_y, steps=strategy.num_steps, eps=strategy.eps, x=batch.x
        )
        return batch.x + 10 * strategy.num_steps.view(-1, 1, 1, 1)

    return {"x_adv": attack_balanced(group, attack, batch, strategy), "given": (batch, strategy), **seen}


def statistics(group: ProcessGroup) -> dict[str, dict[str, Tensor]]:
    """Both nets after one update on shards of 3 and 4, and the shard itself."""
    config = config_of("batch norm")
    env = build_game(config, make_images(28), 4, group=group, device=CPU)
    learner = make_learner(make_context(config, env.space, group))
    before = {name: copy.deepcopy(net) for name, net in (("target", env.net), ("strategy", learner.net))}
    batch, action = env.batch, torch.zeros(env.num_envs, 3, dtype=torch.int64)
    *_, info = env.step(action)
    reward = torch.arange(env.num_envs, dtype=torch.float64)
    log_prob = torch.zeros(env.num_envs, dtype=torch.float64)
    learner.update(
        Rollout(x=batch.x, action=action, log_prob=log_prob, reward=reward, global_size=batch.global_size)
    )
    return {
        "seen": {"target": info["x_adv"], "strategy": batch.x},
        "before": {name: net.state_dict() for name, net in before.items()},
        "after": {"target": env.net.state_dict(), "strategy": learner.net.state_dict()},
    }


def worker(rank: int, size: int, path: str) -> None:
    """One of ``size`` processes; leaves its results in ``path``."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{path}/rendezvous",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=120),
    )
    group, root = ProcessGroup(rank, size), Path(path)
    results: dict[str, Any] = {"collectives": collectives(group), "statistics": statistics(group)}
    results["attacks"] = balanced(group)
    for game in GAMES:
        results[game] = train(game, RunFolder(root / slug(game)), group)
    results["resumed"] = train(RESUMED, RunFolder(root / "resumed"), group)
    torch.save(results, root / f"rank{rank}.pt")
    dist.destroy_process_group()
