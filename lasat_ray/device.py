"""The device that a worker computes on: its name, copies to it that nobody waits for, its memory's end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lasat_ray.errors import UserError


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
