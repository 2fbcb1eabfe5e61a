"""The small run of the fault campaign, and how a fault hits a process of it at a given round."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from lasat_ray.config import TrainConfig
from lasat_ray.recipes import get_recipe
from lasat_ray.runs import checkpoint
from lasat_ray.training.loop import Trainer

EPOCHS, ROUNDS = 6, 18

Strike = Callable[[], None]


def campaign_config() -> TrainConfig:
    """Digits, an MLP, 18 rounds, a learned strategy with momentum and a running baseline."""
    base = get_recipe("digits").config
    return dataclasses.replace(
        base,
        model="mlp",
        strategy_model="mlp",
        epochs=EPOCHS,
        batch_size=48,
        data=dataclasses.replace(base.data, max_train=160, max_test=40),
        attack=dataclasses.replace(base.attack, grid={"eps": (0.1, 0.2), "num_steps": (1.0, 2.0, 3.0)}),
        reward=dataclasses.replace(base.reward, ref_num_steps=2),
        policy=dataclasses.replace(base.policy, momentum=0.9, baseline="running"),
        evaluation=dataclasses.replace(base.evaluation, val_num_steps=2, test_num_steps=(2,)),
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_round(trainer: Trainer, round: int, strike: Strike) -> None:
    """Strike in the attack of a round."""
    attack = trainer.env.attack_as_chosen

    def struck(strategy: Any) -> Any:
        if trainer.env.round == round:
            strike()
        return attack(strategy)

    trainer.env.attack_as_chosen = struck  # type: ignore[method-assign]


def at_save(trainer: Trainer, round: int, call: str, strike: Strike = die) -> None:
    """Strike in the first checkpoint after a round: before ``fsync`` or before the ``replace`` after it."""
    real = getattr(os, call)

    def struck(*args: Any) -> Any:
        if trainer.env.round > round:
            strike()
        return real(*args)

    setattr(checkpoint.os, call, struck)


def at_all_reduce(trainer: Trainer, round: int, strike: Strike) -> None:
    """Strike when a round's first all-reduce is under way."""
    real = dist.all_reduce

    def struck(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        if trainer.env.round == round:
            under_way = real(tensor, async_op=True)
            strike()
            return under_way.wait()
        return real(tensor, *args, **kwargs)

    dist.all_reduce = struck


def fill_disk() -> None:
    """No file of this process may grow beyond 4 KiB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
