"""A method from outside the project, held to its contract at every call."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from lasat_ray.attacks.objectives import ObjectiveOf
from lasat_ray.attacks.pgd import Rule, StepState
from lasat_ray.config import LossConfig
from lasat_ray.methods.base import AttackContext, Method, MethodInputs, MethodMemory
from lasat_ray.plugins import Plugin, checked_state, shown
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import AttackedBatch, AttackStats, Batch, Logits, Strategy


def held(method: Method, plugin: Plugin) -> Method:
    """``method`` whose functions are UserErrors naming it where they raise or return anything wrong."""

    def loss(inputs: MethodInputs) -> Tensor:
        with plugin.call("loss"):
            loss_B = method.loss(inputs)
        _check_vector(loss_B, "loss", len(inputs.y), plugin)
        if inputs.logits.adv.requires_grad and not loss_B.requires_grad:
            raise plugin.fault("loss returned numbers without a graph", "compute them from the logits")
        return loss_B

    def rule(context: AttackContext) -> Rule:
        assert method.rule is not None
        with plugin.call("rule"):
            found = method.rule(context)
        _check_kind(found, Rule, "rule", plugin)
        return HeldRule(found, plugin, len(context.batch.y))

    def limit(context: AttackContext) -> Strategy:
        assert method.limit is not None
        with plugin.call("limit"):
            found = method.limit(context)
        _check_kind(found, Strategy, "limit", plugin)
        for name, value in found.items():
            _check_vector(value, f"limit, field {name},", len(context.batch.y), plugin, floating=False)
        return found

    def conclude(stats: AttackStats, context: AttackContext) -> AttackStats:
        assert method.conclude is not None
        with plugin.call("conclude"):
            found = method.conclude(stats, context)
        _check_stats(found, "conclude", len(context.batch.y), plugin)
        return found

    def adversary(context: AttackContext) -> Tensor:
        assert method.adversary is not None
        with plugin.call("adversary"):
            found = method.adversary(context)
        if not isinstance(found, Tensor) or found.shape != context.batch.x.shape:
            shape = tuple(context.batch.x.shape)
            raise plugin.fault(f"adversary returned {shown(found)}", f"return a tensor of {shape}")
        return found

    def objective(context: AttackContext) -> ObjectiveOf:
        assert method.objective is not None
        with plugin.call("objective"):
            found = method.objective(context)
        if not callable(found):
            raise plugin.fault(f"objective returned {shown(found)}", "return a function of a batch")
        return found

    def memory(config: LossConfig) -> MethodMemory:
        assert method.memory is not None
        with plugin.call("memory"):
            return HeldMemory(method.memory(config), plugin)

    return dataclasses.replace(
        method,
        loss=loss,
        objective=objective if method.objective else None,
        memory=memory if method.memory else None,
        adversary=adversary if method.adversary else None,
        rule=rule if method.rule else None,
        limit=limit if method.limit else None,
        conclude=conclude if method.conclude else None,
    )


class HeldRule(Rule):
    """``inner`` with its answers looked at; ``count`` images a batch."""

    def __init__(self, inner: Rule, plugin: Plugin, count: int):
        self.inner, self.plugin, self.count = inner, plugin, count
        self.stops = inner.stops

    def moves(self, state: StepState) -> Tensor | None:
        """[S] bool, or None for all."""
        with self.plugin.call("moves"):
            found = self.inner.moves(state)
        if found is not None:
            _check_vector(found, "moves", len(state.grad), self.plugin, floating=False)
        return found

    def sizes(self, state: StepState) -> Tensor | None:
        """[S], or None for the strategy's."""
        with self.plugin.call("sizes"):
            found = self.inner.sizes(state)
        if found is not None:
            _check_vector(found, "sizes", len(state.grad), self.plugin)
        return found

    def noise(self, state: StepState) -> Tensor | None:
        """[S,C,H,W], or None."""
        with self.plugin.call("noise"):
            found = self.inner.noise(state)
        if found is not None and (not isinstance(found, Tensor) or found.shape != state.delta.shape):
            told = f"noise returned {shown(found)}"
            raise self.plugin.fault(told, f"return a tensor of {tuple(state.delta.shape)}")
        return found

    def stats(self) -> AttackStats:
        """[B] each."""
        with self.plugin.call("stats"):
            found = self.inner.stats()
        _check_stats(found, "stats", self.count, self.plugin)
        return found


class HeldMemory:
    """``inner`` with what it raises told as its own, and its tensors looked at."""

    def __init__(self, inner: MethodMemory, plugin: Plugin):
        self.inner, self.plugin = inner, plugin

    def tensors(self, epoch: int) -> dict[str, Tensor]:
        """By name, of any shape."""
        with self.plugin.call("memory.tensors"):
            found = self.inner.tensors(epoch)
        _check_kind(found, dict, "memory.tensors", self.plugin)
        for name, value in found.items():
            _check_kind(value, Tensor, f"memory.tensors, '{name}',", self.plugin)
        return found

    def learn(self, batch: Batch, logits: Logits, group: ProcessGroup) -> None:
        """Images [B], logits [B,N]."""
        with self.plugin.call("memory.learn"):
            self.inner.learn(batch, logits, group)

    def remember(self, attacked: AttackedBatch, gradient: Tensor | None, group: ProcessGroup) -> None:
        """As ``AttackMemory.remember``, where the memory has it."""
        remember = getattr(self.inner, "remember", None)
        if remember is not None:
            with self.plugin.call("memory.remember"):
                remember(attacked, gradient, group)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint can hold."""
        with self.plugin.call("memory.state_dict"):
            state = self.inner.state_dict()
        return checked_state(state, "memory.state_dict", self.plugin)

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """As ``MethodMemory.load_state_dict``."""
        with self.plugin.call("memory.load_state_dict"):
            self.inner.load_state_dict(state, device)


def _check_kind(found: Any, kind: type, what: str, plugin: Plugin) -> None:
    if not isinstance(found, kind):
        raise plugin.fault(f"{what} returned {shown(found)}", f"return a {kind.__name__}")


def _check_vector(found: Any, what: str, count: int, plugin: Plugin, *, floating: bool = True) -> None:
    if not isinstance(found, Tensor) or tuple(found.shape) != (count,):
        raise plugin.fault(
            f"{what} returned {shown(found)}", f"return one number an image, a tensor of {(count,)}"
        )
    if floating and not found.is_floating_point():
        raise plugin.fault(f"{what} returned {shown(found)}", "return floating-point numbers")


def _check_stats(found: Any, what: str, count: int, plugin: Plugin) -> None:
    _check_kind(found, dict, what, plugin)
    for name, value in found.items():
        _check_vector(value, f"{what}, figure '{name}',", count, plugin, floating=False)
