"""Learners that take several gradient steps on one round: passes over shuffled minibatches."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lasat_ray.learners.policy import PolicyLearner, PolicyOutput, Scalars
from lasat_ray.process_group import to_device
from lasat_ray.rng import RandomKey
from lasat_ray.types import Rollout


@dataclass(frozen=True, kw_only=True, slots=True)
class Minibatch:
    """This worker's part of a minibatch: ``rows`` [M] of its own share (there may be none), and
    ``size``, the images of the minibatch over all workers."""

    rows: Tensor
    size: int


class EpochLearner(PolicyLearner):
    """``prepare`` reads the round once; ``loss`` is then minimized over ``update_epochs`` passes.

    Minibatches are drawn from the *global* batch by a named shuffle, and a worker contributes what
    it holds of each: any number of workers takes the same steps.
    """

    learns_from_acting_pass = False

    @abc.abstractmethod
    def prepare(self, rollout: Rollout, before: list[Tensor], advantage_B: Tensor) -> None:
        """Keep what the losses of this round need: log-probabilities that acted, [B,V_k] a head, and
        advantages [B]."""

    @abc.abstractmethod
    def loss(self, log_probs: list[Tensor], rows: Tensor) -> Tensor:
        """The policy's loss summed over the images ``rows`` [M] of the round (0-d), from their
        log-probabilities now, [M,V_k] a head."""

    def moved_enough(self, rollout: Rollout) -> bool:
        """Whether to leave out the remaining passes; the same on every worker."""
        return False

    def learn(self, rollout: Rollout, output: PolicyOutput) -> tuple[list[Tensor], Scalars]:
        """All passes; metrics, 0-d: gradient norm of the last step, and how many passes were made."""
        before = output.log_probs
        self.prepare(rollout, before, self.advantage(rollout, output.value_B))
        grad_norm, passes = torch.zeros(()), 0
        for epoch in range(self.config.update_epochs):
            for minibatch in self._minibatches(rollout, epoch):
                grad_norm = self.descend(self._loss_of(rollout, minibatch))
            passes += 1
            if self.moved_enough(rollout):
                break
        scalars = {"policy_grad_norm": grad_norm, "policy_epochs": torch.full_like(grad_norm, passes)}
        return before, scalars

    def _loss_of(self, rollout: Rollout, minibatch: Minibatch) -> Tensor | None:
        rows = minibatch.rows
        if not len(rows):
            return None
        log_probs, value_B = self.see(rollout.x[rows])
        total = self.loss(log_probs, rows) + self.extras(log_probs, value_B, rollout.reward[rows])
        return total / minibatch.size

    def _minibatches(self, rollout: Rollout, epoch: int) -> Iterator[Minibatch]:
        n = rollout.global_size
        order = RandomKey.of(self.seed, "policy minibatches", self.updates, epoch).permutation(n)
        first, end = self.group.shard_bounds(n)
        parts = order.tensor_split(min(self.config.minibatches, n))
        mine = [part[(part >= first) & (part < end)] - first for part in parts]
        there = to_device(torch.cat(mine), rollout.x.device)  # one copy for all
        for part, rows in zip(parts, there.split([len(rows) for rows in mine]), strict=True):
            yield Minibatch(rows=rows, size=len(part))
