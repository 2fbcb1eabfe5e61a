"""UCB1 (Auer, Cesa-Bianchi and Fischer 2002), discounted if asked (Garivier and Moulines 2011)."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lasat_ray.learners.arms import JointArms
from lasat_ray.learners.base import LearnerContext
from lasat_ray.process_group import to_device, to_host
from lasat_ray.rng import RandomKey
from lasat_ray.types import Action


def ucb_index(mean: float, count: float, total: float, width: float) -> float:
    """mean + width sqrt(2 ln total / count); an arm never taken comes first."""
    return math.inf if count <= 0 else mean + width * math.sqrt(2 * math.log(max(total, 1.0)) / count)


def allot(
    mean: Sequence[float], count: Sequence[float], order: Sequence[int], pulls: int, width: float
) -> list[int]:
    """The arms of ``pulls`` images that are served at once: each takes the arm of the largest index,
    and counts as a pull whose reward is the mean so far. Ties go by ``order``."""
    total, counts = sum(count), list(count)
    heap = [(-ucb_index(mean[a], counts[a], total, width), order[a], a) for a in range(len(mean))]
    heapq.heapify(heap)
    taken = []
    for _ in range(pulls):
        _, place, arm = heap[0]
        taken.append(arm)
        counts[arm] += 1
        heapq.heapreplace(heap, (-ucb_index(mean[arm], counts[arm], total, width), place, arm))
    return taken


class UCB(JointArms):
    """Serves a round's images one after the other, in the order of the global batch. An arm that has
    been forgotten (a discounted count under 1/2) is new again."""

    def __init__(self, context: LearnerContext):
        super().__init__(context)
        self.order = RandomKey.of(self.seed, "ucb order").permutation(len(self.count)).tolist()

    def act(self, x: Tensor, index: Tensor, key: RandomKey) -> Action:
        """The arms that fall to this worker's images, as index [B,K]; log_prob 0, for nothing is drawn."""
        count = torch.where(self.count >= 0.5, self.count, 0.0)
        mean = self.total / self.count.clamp(min=0.5)
        width = self.config.exploration * self.mean_and_deviation()[1]
        told = to_host(torch.cat([count, mean, width[None]])).tolist()  # one look at the device
        arms = len(count)
        first, end = self.group.shard_bounds(self.global_size)
        if len(x) != end - first:  # not a round: images shown to it by themselves
            first, end = 0, len(x)
        taken = allot(told[arms : 2 * arms], told[:arms], self.order, max(self.global_size, end), told[-1])
        arm = to_device(torch.tensor(taken[first:end]), x.device)
        return Action(index=self.action_of(arm), log_prob=torch.zeros_like(x[:, 0, 0, 0]))
