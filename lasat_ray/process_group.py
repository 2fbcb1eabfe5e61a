"""The other workers, as far as the arithmetic is concerned, and the device that this one computes on.

Every collective of the project is here. With one worker each is a no-op, so the same loop runs
in a plain process, under Ray Train, or under anything else that set up ``torch.distributed``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lasat_ray.errors import UserError


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This worker's place: ``rank`` in [0, size)."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """True on the worker that writes files."""
        return self.rank == 0

    def shard_bounds(self, global_size: int) -> tuple[int, int]:
        """The part of a global batch that is this worker's: first position, and the one after the last."""
        return self.rank * global_size // self.size, (self.rank + 1) * global_size // self.size

    def gather(self, mine: Tensor, global_size: int) -> Tensor:
        """Every worker's share [B,...] of a global batch, in its order, on every worker; [N,...]."""
        if self.size == 1:
            return mine
        first, end = self.shard_bounds(global_size)
        whole = mine.new_zeros(global_size, *mine.shape[1:])
        whole[first:end] = mine
        # A sum that gathers: outside of a worker's own slice its tensor is zero.
        dist.all_reduce(whole)
        return whole

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over workers of a tensor of any shape (a new one; the argument itself with one worker)."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def sum_in_place(self, tensors: list[Tensor]) -> None:
        """Replace each tensor (any shape) by its sum over workers, in one flat message per dtype.

        One message is what makes small nets scale: per-parameter messages measured four times
        the cost on four ranks.
        """
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
        for group in by_dtype.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.all_reduce(flat)
            for tensor, total in zip(group, flat.split([t.numel() for t in group]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def all_to_all(self, rows: Tensor, send: list[int], receive: list[int]) -> Tensor:
        """``send[w]`` of the rows [M,...] go to each worker w, in order; returns the ``receive[w]`` rows that
        each sent."""
        if self.size == 1:
            return rows
        got = rows.new_empty(sum(receive), *rows.shape[1:])
        dist.all_to_all_single(got, rows.contiguous(), receive, send)
        return got

    def broadcast_from_first(self, net: nn.Module) -> None:
        """Give every worker the first worker's weights and buffers."""
        if self.size > 1:
            for tensor in net.state_dict().values():
                sent = tensor.contiguous()  # weights may lie channels last
                dist.broadcast(sent, src=0)
                tensor.copy_(sent)

    def barrier(self) -> None:
        """Wait until every worker is here."""
        if self.size > 1:
            dist.barrier()

    def raise_together(self, error: UserError | None, device: torch.device) -> None:
        """UserError on every worker where any has one: each raises its own, else one that says so."""
        failed = torch.tensor(0.0 if error is None else 1.0, device=device)
        if self.sum(failed).item():
            raise error or UserError("another worker could not go on; its own message says why")


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients to sum; a parameter unused in this loss gets zeros, so that ranks agree."""
    out = []
    for parameter in parameters:
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            out.append(parameter.grad)
    return out


def indexed(device: torch.device | str) -> torch.device:
    """The device as its tensors name it: ``cuda`` becomes ``cuda:N``, N the card in use.

    PyTorch holds ``cuda`` and ``cuda:0`` for different devices, but no tensor lies on ``cuda``: every
    comparison of devices wants this name.
    """
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor [...] of the host on the device, without waiting for the copy.

    From page-locked memory, for from any other the host waits until all that the GPU was asked to do
    is done. Pinning a batch, not the set: PyTorch's pinned allocator reuses that memory only after the
    copy has finished.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensor: Tensor) -> Tensor:
    """A tensor [...] on the host, once the device has computed it: the one way in which a round waits on
    purpose. Into page-locked memory and for that copy alone, so that CUDA's watch for waits
    (``torch.cuda.set_sync_debug_mode``) sees those that nobody meant."""
    return HostCopy(tensor).read()


class HostCopy:
    """A copy of a tensor [...] on its way to the host, begun behind what the device was asked before; one of
    the host's is there already."""

    def __init__(self, tensor: Tensor) -> None:
        self._there, self._copied = tensor, None
        if tensor.is_cuda:
            self._there = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._there.copy_(tensor, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> Tensor:
        """The copy [...], once it is there; waits for nothing that was begun later."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._there


def numbers_like(like: Tensor, values: Sequence[float]) -> Tensor:
    """The host's numbers beside a tensor [...], in its dtype and on its device, [V], without a wait."""
    return to_device(torch.tensor(values, dtype=like.dtype), like.device)


@contextmanager
def out_of_memory_told(batch_size: int, bucket: int, evaluation_batch_size: int) -> Iterator[None]:
    """Inside the block a GPU without memory left is a UserError: what asked for it and what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        asked = f"--batch-size {batch_size}, --evaluation.batch-size {evaluation_batch_size}"
        asked += f", --speed.bucket {bucket}" if bucket else ""
        remedy = "lower them, share the batch with --num-workers, or choose --precision bf16"
        raise UserError(f"--device: the GPU's memory is full with {asked}; {remedy}") from error
