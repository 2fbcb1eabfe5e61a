"""Two workers with shards of 3 and 4 images learn what one worker learns from all 7, float64.

The workers are threads that meet at every sum; ``tests/test_process_group.py`` has real processes.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lasat_ray.learners import LEARNERS
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.strategy import StrategySpace
from lasat_ray.types import Rollout
from tests.runs.test_checkpoint import same
from tests.support.helpers import close, make_context, small_config
from tests.support.toy import GRID, SETTINGS

N, ROUNDS = 7, 3
STEP = {"policy__optimizer": "sgd", "policy__lr": 0.02, "policy__momentum": 0.9, "policy__grad_clip": 1.0}
MORE = {
    "reinforce, leave-one-out, normalized": {
        "policy__baseline": "leave-one-out",
        "policy__normalize_advantage": True,
        "policy__min_exploration": 0.1,
    },
    "reinforce, running": {"policy__baseline": "running"},
    "reinforce, value, entropy": {"policy__baseline": "value", "policy__entropy_weight": 0.1},
    "reinforce, greedy": {"policy__baseline": "greedy"},
    "a2c, batch norm": {"strategy_model": "small_cnn_bn"},
    "ppo, batch norm": {"strategy_model": "small_cnn_bn", "policy__minibatches": 4, "policy__target_kl": 0.1},
    "ppo, ordinal": {"policy__head": "ordinal", "policy__minibatches": 7},
}
CASES = {**{name: {} for name in LEARNERS}, **MORE}


class Meeting:
    """Where ``size`` threads bring their tensors and read the sum."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=60)
        self.brought = [None] * size


class Together(ProcessGroup):
    """A worker that is a thread."""

    def __init__(self, rank, meeting):
        super().__init__(rank, len(meeting.brought))
        object.__setattr__(self, "meeting", meeting)

    def sum(self, tensor):
        self.meeting.brought[self.rank] = tensor.detach().clone()
        self.meeting.barrier.wait()
        total = sum(self.meeting.brought[1:], self.meeting.brought[0])
        self.meeting.barrier.wait()
        return total

    def sum_in_place(self, tensors):
        for tensor in tensors:
            tensor.copy_(self.sum(tensor))

    def broadcast_from_first(self, net):
        pass  # the seed makes them equal


def learner_of(case, group):
    name = case.partition(",")[0]
    control = {"strategy": name} if name in ("random", "fixed", "curriculum") else {"learner": name}
    settings = {**SETTINGS[name], **(STEP if "policy__lr" in SETTINGS[name] else {}), **CASES[case]}
    config = small_config(precision="fp64", batch_size=N, **control, **settings)
    space = StrategySpace.of(GRID, device="cpu", dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LEARNERS[name](make_context(config, space, group))


def play(learner, rows):
    """Three rounds on these rows of each batch; (actions, reports)."""
    told, index = [], torch.arange(N)
    for round in range(ROUNDS):
        x = RandomKey.of("x", round).uniform(index, (1, 8, 8), torch.float64)
        action = learner.act(x[rows], index[rows], RandomKey.of("action", round))
        shade = x.mean((1, 2, 3))[rows]
        reward = (
            3 + shade * action.index.sum(1) + RandomKey.of("r", round).normal(index, (), torch.float64)[rows]
        )
        report = learner.update(
            Rollout(
                x=x[rows],
                action=action.index,
                log_prob=action.log_prob,
                reward=reward,
                global_size=N,
                greedy_reward=reward - shade,
            )
        )
        told.append((action.index, report))
    return told


@pytest.mark.parametrize("case", CASES)
def test_two_workers_learn_what_one_does(case):
    alone, meeting = learner_of(case, ProcessGroup()), Meeting(2)
    workers = [learner_of(case, Together(rank, meeting)) for rank in range(2)]
    whole = play(alone, slice(0, N))
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(play, workers, [slice(0, 3), slice(3, N)]))
    assert same(workers[0].state_dict(), workers[1].state_dict())
    for got, want in zip(tensors(workers[0].state_dict()), tensors(alone.state_dict()), strict=True):
        close(got.double(), want.double(), atol=1e-9)
    for (action, report), *shards in zip(whole, *parts, strict=True):
        assert torch.equal(action, torch.cat([index for index, _ in shards]))
        for name, value in report.per_image.items():
            close(torch.cat([each.per_image[name] for _, each in shards]), value, atol=1e-9)
        for name, value in report.scalars.items():
            close(shards[1][1].scalars[name], value, atol=1e-9)


def tensors(node):
    if isinstance(node, torch.Tensor):
        return [node]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    return [tensor for child in children for tensor in tensors(child)]
