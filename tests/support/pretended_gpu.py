"""A GPU that pretends: CPU tensors that report ``cuda:0`` and refuse to be mixed with those of the host.

``with pretended_gpu() as gpu:`` makes ``torch.device("cuda")`` work without a card or a driver; values are
the processor's. ``with gpu.counting() as counts:`` counts what would launch a kernel and what would make
the host wait for the card, by kind and by file and line. CUDA graphs are recorded operation by operation
and replayed into the same memory, and count as one launch. A compiled function is the function itself.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # before anything is replaced: it lists torch's functions
import torch.autograd.forward_ad as fwd
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.support.pretended_card import (
    CARD,
    GPU,
    CardGraph,
    CardTensor,
    PretendedGPU,
    names_card,
    to_card,
    to_host,
    unwrapped,
)


class _Calls(TorchFunctionMode):
    """Calls that name a device, or that bring numbers from one to the other."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, named = getattr(func, "__name__", ""), dict(kwargs or {})
        if named.pop("pin_memory", False):
            out = func(*(unwrapped(each) for each in args), **named)
            out.is_page_locked = True
            return out
        special = getattr(self, f"_{name.strip('_')}_", None)
        if special is not None and args and isinstance(args[0], Tensor):
            return special(func, args, named)
        if names_card(named.get("device")):
            return self._made_on_card(func, args, {**named, "device": "cpu"})
        if "device" in named and args and isinstance(args[0], CardTensor) and name.endswith("_like"):
            return func(args[0].host, *args[1:], **named)
        return func(*args, **named)

    def _made_on_card(self, func: Callable[..., Any], args: Sequence[Any], named: dict[str, Any]) -> Any:
        out = func(*args, **named)
        if func in (torch.tensor, torch.as_tensor):
            return to_card(out, waits=True)
        if isinstance(out, CardTensor):
            return out
        GPU.launch(getattr(func, "__name__", ""))
        return CardTensor(out.detach()).requires_grad_(out.requires_grad)

    def _get_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        answers = {"device": CARD, "is_cuda": True, "is_cpu": False}
        asked = getattr(getattr(func, "__self__", None), "__name__", "")
        return (
            answers[asked] if isinstance(args[0], CardTensor) and asked in answers else func(*args, **named)
        )

    def _to_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Tensor:
        tensor, rest = args[0], list(args[1:])
        if rest and isinstance(rest[0], Tensor):
            rest[:1] = [rest[0].device, rest[0].dtype]
        devices = [each for each in rest if isinstance(each, (torch.device, str))] + [
            named.pop("device", None)
        ]
        plain = [each for each in rest if isinstance(each, (torch.dtype, torch.memory_format))]
        calm = named.pop("non_blocking", False) and getattr(tensor, "is_page_locked", False)
        out = func(tensor, *plain, **named) if plain or named else tensor
        if devices[0] is None:
            return out
        return to_card(out, waits=not calm) if names_card(devices[0]) else to_host(out, "copy to the host")

    def _cuda_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Tensor:
        return to_card(args[0], waits=True)

    def _cpu_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Tensor:
        return to_host(args[0], "copy to the host")

    def _pin_memory_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Tensor:
        assert not isinstance(args[0], CardTensor), "only dense CPU tensors can be pinned"
        pinned = args[0].clone()
        pinned.is_page_locked = True
        return pinned

    def _numpy_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        if isinstance(args[0], CardTensor):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
        return func(*args, **named)

    def _tolist_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        return to_host(args[0], "tolist").tolist() if isinstance(args[0], CardTensor) else func(*args)

    def _format_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> str:
        return func(to_host(args[0], "item"), *args[1:])

    def _equal_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> bool:
        if isinstance(args[0], CardTensor) != isinstance(args[1], CardTensor):
            raise RuntimeError("Expected all tensors to be on the same device: equal(cuda:0, cpu)")
        return func(*(to_host(tensor, "equal") for tensor in args[:2]))

    def _new_tensor_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Tensor:
        if not isinstance(args[0], CardTensor):
            return func(*args, **named)
        named.pop("device", None)
        return to_card(args[0].host.new_tensor(*args[1:], **named), waits=True)

    def _data_ptr_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> int:
        return func(unwrapped(args[0]))

    def _record_stream_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> None:
        return None

    def _copy_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Tensor:
        into, source, *rest = args
        if not isinstance(source, Tensor) or isinstance(into, CardTensor) == isinstance(source, CardTensor):
            return func(*args, **named)
        host = source if isinstance(into, CardTensor) else into
        calm = (named.get("non_blocking") or rest == [True]) and getattr(host, "is_page_locked", False)
        if not calm:
            GPU.wait("copy between devices")
        unwrapped(into).copy_(unwrapped(source))
        return into


class _Event:
    """A mark in the stream; waiting for it is free where something later was waited for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.number = 0

    def record(self, *args: Any) -> None:
        GPU.events += 1
        self.number = GPU.events

    def synchronize(self) -> None:
        if self.number > GPU.reached:
            GPU.wait("event", self.number)

    def query(self) -> bool:
        return self.number <= GPU.reached


@contextlib.contextmanager
def _recorded(graph: CardGraph, **kwargs: Any) -> Iterator[None]:
    """Inside the block operations go into the graph. Here they also run, which changes nothing in what a
    replay finds: callers fill the graph's memory before every replay."""
    GPU.recording = graph
    try:
        yield
    finally:
        GPU.recording = None


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


class _Stream:
    def wait_stream(self, other: object) -> None:
        pass

    def synchronize(self) -> None:
        GPU.wait("stream")


def _grouped(lists: list[list[Any]], with_indices: bool = False) -> dict[Any, Any]:
    """Optimizers ask torch's own code for devices, which sees where the memory is."""
    found = torch._C._group_tensors_by_device_and_dtype(lists, with_indices)
    on_card = any(isinstance(tensor, CardTensor) for tensor in lists[0])
    return {(CARD if on_card else device, dtype): group for (device, dtype), group in found.items()}


_make_dual = fwd.make_dual


def _dual(tensor: Tensor, tangent: Tensor, **kwargs: Any) -> Tensor:
    """Forward mode is not pretended: a dual of the card's tensor would be one of the host's."""
    if isinstance(tensor, CardTensor):
        raise NotImplementedError("forward mode is not pretended")
    return _make_dual(tensor, tangent, **kwargs)


def _stands_ins() -> list[tuple[Any, str, Any]]:
    """(owner, name, what stands there while the card is pretended)."""
    nothing: Callable[..., None] = lambda *args, **kwargs: None  # noqa: E731
    cuda: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_current_stream_capturing": lambda: GPU.recording is not None,
        "mem_get_info": lambda *args: (70 << 30, 80 << 30),
        "get_device_name": lambda *args: "pretended",
        "get_device_properties": lambda *args: types.SimpleNamespace(name="pretended", total_memory=80 << 30),
        "max_memory_allocated": lambda *args: 0,
        "synchronize": lambda *args: GPU.wait("synchronize"),
        "Event": _Event,
        "CUDAGraph": CardGraph,
        "graph": _recorded,
        "Stream": _Stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda *args: _Stream(),
        **dict.fromkeys(("empty_cache", "reset_peak_memory_stats", "manual_seed_all"), nothing),
        "get_rng_state": lambda *args: torch.zeros(0, dtype=torch.uint8),  # draws are the processor's
        "set_rng_state": nothing,
        "set_sync_debug_mode": lambda mode: setattr(GPU, "watched", mode),
    }
    checks = [name for name in dir(torch.optim.Optimizer) if name.endswith("graph_capture_health_check")]
    return [
        *((torch.cuda, name, value) for name, value in cuda.items()),
        *((torch.optim.Optimizer, name, nothing) for name in checks),
        (torch, "autocast", _Autocast),
        (torch, "compile", lambda function, **options: function),
        (fwd, "make_dual", _dual),
        (torch.utils._foreach_utils, "_foreach_supported_types", [torch.Tensor, CardTensor]),
        (
            sys.modules["torch.optim.optimizer"],
            "_foreach_supported_types",
            [torch.Tensor, CardTensor, torch.nn.Parameter],
        ),
        (torch.nn.utils.clip_grad, "_group_tensors_by_device_and_dtype", _grouped),
    ]


@contextlib.contextmanager
def pretended_gpu() -> Iterator[PretendedGPU]:
    """Pretend one card inside the block, and nothing of it afterwards."""
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        for owner, name, value in _stands_ins():
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.callback(setattr, GPU, "watched", "default")
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.enter_context(_Calls())
        yield GPU
