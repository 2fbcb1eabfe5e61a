"""A whole PGD step as one CUDA graph: one launch instead of a hundred and more.

The step reads the batch, the weights and the rows of a pass from memory that stays where it is, so one
recording serves every pass of its size. The first replay of a recording has to give the very bits of the
step that was recorded; else, or where recording fails, attacks go on without graphs and say so once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lasat_ray.attacks.ball import Ball
from lasat_ray.attacks.objectives import PerImage, Rows
from lasat_ray.errors import Fallback, one_line
from lasat_ray.models import AttackNet

BUCKET = 16
"""Sizes of passes are multiples of this where ``speed.bucket`` is 0."""
_WARM_UP = 2  # steps before a recording, in which libraries choose and load their kernels


class StepGraphs:
    """The recorded steps of one net, ball and loss on batches of one shape.

    ``inputs``: x [B,C,H,W], delta [B,C,H,W], eps and step size [B,1,1,1], and what the loss reads [B,...].
    """

    def __init__(
        self, net: nn.Module, loss: Callable[..., Tensor], ball: Ball, inputs: list[Tensor], bucket: int
    ) -> None:
        self.net, self.loss, self.ball = net, loss, ball
        self.bucket, self.count = bucket or BUCKET, len(inputs[0])
        # One image more than the batch has: those that fill a pass up are this one, which nobody reads.
        self._held = [torch.cat([value, value[:1]]) for value in inputs]
        self._rows: dict[int, Tensor] = {}
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def run(self, inputs: list[Tensor], passes: Iterable[Rows]) -> Tensor:
        """The perturbations [B,C,H,W] after all passes from ``inputs``."""
        for held, value in zip(self._held, inputs, strict=True):
            held[: self.count].copy_(value)
        every = torch.arange(self.count, device=self._held[0].device)
        for rows in passes:
            self._play(every if isinstance(rows, slice) else rows)
        return self._held[1][: self.count].clone()

    def _play(self, rows: Tensor) -> None:
        count = len(rows)
        size = min(self.count, -(-count // self.bucket) * self.bucket)
        if size not in self._graphs:
            self._rows[size] = rows.new_full((size,), self.count)
            self._graphs[size] = self._recorded(size, rows)
        static = self._rows[size]
        if count < size:
            static[count:].fill_(self.count)
        static[:count].copy_(rows)
        self._graphs[size].replay()

    def _step(self, rows: Tensor) -> None:
        x, delta, eps, step_size, *read = (value.index_select(0, rows) for value in self._held)
        delta.requires_grad_(True)
        with torch.enable_grad():
            loss = self.loss(self.net(x + delta), *read)
            (grad,) = torch.autograd.grad(loss, delta, torch.ones_like(loss))
        moved = delta.detach() + self.ball.ascend(grad, step_size)
        self._held[1].index_copy_(0, rows, self.ball.project(moved, x, eps))

    def _recorded(self, size: int, rows: Tensor) -> torch.cuda.CUDAGraph:
        """The step of ``size`` images as a graph, tried on ``rows``; RuntimeError where it cannot be had."""
        static, delta = self._rows[size], self._held[1]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._step(static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(static)
        static[: len(rows)].copy_(rows)
        before = delta.clone()
        self._step(static)
        stepped = delta[: self.count].clone()
        delta.copy_(before)
        graph.replay()
        if not torch.equal(stepped, delta[: self.count]):
            raise RuntimeError("a replayed step differs from the step that was recorded")
        delta.copy_(before)
        return graph


def graphs_of(net: nn.Module, x: Tensor) -> GraphedAttacks | None:
    """The graphs of the attacks on ``net`` with images like x [B,C,H,W]; None where steps are not graphs."""
    if not (x.is_cuda and isinstance(net, AttackNet) and net.speed.compile == "graph"):
        return None
    if net.graphed is None:
        net.graphed = GraphedAttacks(net.speed.bucket)
    return net.graphed if net.graphed.works else None


class GraphedAttacks:
    """All graphs of an attack net, made as they are needed; ``works`` is False once one failed."""

    def __init__(self, bucket: int) -> None:
        self.bucket, self.works = bucket, True
        self._steps: dict[object, StepGraphs] = {}

    def run(
        self, net: nn.Module, objective: PerImage, ball: Ball, inputs: list[Tensor], passes: list[Rows]
    ) -> Tensor | None:
        """The perturbations [B,C,H,W] after all passes; None where graphs cannot be had."""
        inputs = [*inputs, *objective.tensors]
        name = (objective.loss, ball, *((value.shape, value.dtype) for value in inputs))
        try:
            if name not in self._steps:
                self._steps[name] = StepGraphs(net, objective.loss, ball, inputs, self.bucket)
            return self._steps[name].run(inputs, passes)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except RuntimeError as error:
            self.works = False
            told = f"--speed.compile graph: {one_line(str(error))[:200]}; attacks go on without graphs"
            warnings.warn(told, Fallback, stacklevel=2)
            return None
