"""A GPU that pretends: CPU tensors that report ``cuda:0`` and refuse to be mixed with those of the host.

``with pretended_gpu() as gpu:`` makes ``torch.device("cuda")`` work without a card or a driver; values are
the processor's. ``with gpu.counting() as counts:`` counts what would launch a kernel and what would make
the host wait for the card, by kind and by file and line. CUDA graphs are recorded operation by operation
and replayed into the same memory, and count as one launch. Compilation is not pretended.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar
from unittest import mock

import torch
import torch._dynamo  # before anything is replaced: it lists torch's functions
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CARD = torch.device("cuda:0")
_ROOTS = ("/lasat_ray/", "/benchmarks/")
_VIEWS = {
    "view",
    "_unsafe_view",
    "detach",
    "t",
    "transpose",
    "permute",
    "expand",
    "slice",
    "select",
    "unsqueeze",
    "squeeze",
    "as_strided",
    "alias",
    "unbind",
    "split",
    "split_with_sizes",
    "_reshape_alias",
    "diagonal",
    "unfold",
    "lift_fresh",
    "narrow",
    "set_",
    "resize_",
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
}
"""Operations without a kernel."""
_WAITING = {
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "equal",
    "is_nonzero",
    "bincount",
}
_INDEXING = ["index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"]


class Counts:
    """What a stretch of the program asked of the card: (kind, places) -> how often."""

    def __init__(self) -> None:
        self.launches: Counter[tuple[str, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()

    @property
    def num_launches(self) -> int:
        return sum(self.launches.values())

    @property
    def num_waits(self) -> int:
        return sum(self.waits.values())


class PretendedGPU:
    """The card's state: who counts, how far the stream has been waited for, and which graph is recorded."""

    def __init__(self) -> None:
        self.counts: Counts | None = None
        self.recording: _Graph | None = None
        self.events = self.reached = 0

    @contextlib.contextmanager
    def counting(self) -> Iterator[Counts]:
        """Counts inside the block."""
        self.counts = Counts()
        try:
            yield self.counts
        finally:
            self.counts = None

    def launch(self, kind: str) -> None:
        if self.counts is not None and self.recording is None:
            self.counts.launches[kind, _place()] += 1

    def wait(self, kind: str, until: int | None = None) -> None:
        """The host waits for all that was begun, or for the event ``until``; what that covers needs no wait
        of its own."""
        if self.recording is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({kind})")
        self.reached = self.events if until is None else until
        if self.counts is not None:
            self.counts.waits[kind, _place()] += 1


_GPU = PretendedGPU()  # of the process; it has no effect outside of ``pretended_gpu``


def _place() -> str:
    """The two innermost places of the project that led here."""
    frame, found = sys._getframe(2), []
    while frame is not None and len(found) < 2:
        name = frame.f_code.co_filename
        root = next((root for root in _ROOTS if root in name and "site-packages" not in name), None)
        if root:
            found.append(f"{name[name.rfind(root) + 1 :]}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(found) or "torch"


class CardTensor(torch.Tensor):
    """A tensor on the pretended card; ``host`` is where its numbers really are."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> CardTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, host.shape, strides=host.stride(), dtype=host.dtype, layout=host.layout, device="cpu"
        )
        made.host = host
        return made

    def __init__(self, host: Tensor) -> None:
        super().__init__()

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CARD

    is_cuda: ClassVar[bool] = True  # type: ignore[misc]
    is_cpu: ClassVar[bool] = False  # type: ignore[misc]

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"CardTensor({self.host})"

    def __deepcopy__(self, memo: dict[int, Any]) -> CardTensor:
        if id(self) not in memo:
            copied = CardTensor(self.host.clone())
            _GPU.launch("deepcopy")
            copied.requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copied._is_param = True  # type: ignore[attr-defined] # as torch marks its own
            memo[id(self)] = copied
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _dispatch(func, args, dict(kwargs or {}))


def _dispatch(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """One operation on the card: its inputs must be there, its outputs are."""
    name = func._schema.name.split("::")[1]
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    _check_devices(func, name, args, given)
    _count(func, name, args, kwargs)
    inner_args, inner_kwargs = tree_map(_unwrapped, args), tree_map(_unwrapped, kwargs)
    out = func(*inner_args, **inner_kwargs)
    if _GPU.recording is not None:
        _GPU.recording.operations.append((func, inner_args, inner_kwargs, out))
    own = {id(_unwrapped(tensor)): tensor for tensor in given}  # what works in place returns its argument
    return tree_map(lambda leaf: own[id(leaf)] if id(leaf) in own else _wrapped(leaf), out)


def _check_devices(func: Any, name: str, args: Sequence[Any], given: list[Tensor]) -> None:
    """As CUDA: numbers of no dimension may come from the host, and indices of a card's tensor."""
    host = [tensor for tensor in given if not isinstance(tensor, CardTensor) and tensor.dim() > 0]
    scalars = [tensor for tensor in given if not isinstance(tensor, CardTensor) and tensor.dim() == 0]
    if name in ("_to_copy", "copy_", "_local_scalar_dense") or not (host or scalars):
        return
    if host and name in _INDEXING and isinstance(args[0], CardTensor):
        return _GPU.wait("index from the host")
    if host or name in ("stack", "cat"):
        shapes = [tuple(tensor.shape) for tensor in host or scalars]
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found cuda:0 and cpu {shapes} in {func}"
        )


def _count(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    if name == "_local_scalar_dense":
        _GPU.wait("item")
    elif name in _WAITING or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        _GPU.wait(name)
    elif name in _INDEXING and _needs_count(name, args):
        _GPU.wait(f"{name} by a mask")
    if name not in _VIEWS and not func.is_view and name != "_local_scalar_dense":
        _GPU.launch(name)


def _needs_count(name: str, args: Sequence[Any]) -> bool:
    """Whether the host has to know how many places a mask has; not where one number is written there."""
    masked = any(index is not None and index.dtype == torch.bool for index in args[1])
    return masked and ("put" not in name or args[2].numel() != 1)


def _unwrapped(leaf: Any) -> Any:
    return leaf.host if isinstance(leaf, CardTensor) else leaf


def _wrapped(leaf: Any) -> Any:
    return CardTensor(leaf) if isinstance(leaf, Tensor) and not isinstance(leaf, CardTensor) else leaf


def _names_card(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _to_card(tensor: Tensor, *, waits: bool, kind: str = "copy from pageable memory") -> Tensor:
    if isinstance(tensor, CardTensor):
        return tensor
    if waits:
        _GPU.wait(kind)
    made = CardTensor(tensor.detach().clone())
    return made.requires_grad_() if tensor.requires_grad else made


def _to_host(tensor: Tensor, kind: str) -> Tensor:
    if not isinstance(tensor, CardTensor):
        return tensor
    _GPU.wait(kind)
    return tensor.host.detach().clone()


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
            out = func(*(_unwrapped(each) for each in args), **named)
            out.is_page_locked = True
            return out
        special = getattr(self, f"_{name.strip('_')}_", None)
        if special is not None and args and isinstance(args[0], Tensor):
            return special(func, args, named)
        if _names_card(named.get("device")):
            return self._made_on_card(func, args, {**named, "device": "cpu"})
        if "device" in named and args and isinstance(args[0], CardTensor) and name.endswith("_like"):
            return func(args[0].host, *args[1:], **named)
        return func(*args, **named)

    def _made_on_card(self, func: Callable[..., Any], args: Sequence[Any], named: dict[str, Any]) -> Any:
        out = func(*args, **named)
        if func in (torch.tensor, torch.as_tensor):
            return _to_card(out, waits=True)
        if isinstance(out, CardTensor):
            return out
        _GPU.launch(getattr(func, "__name__", ""))
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
        return _to_card(out, waits=not calm) if _names_card(devices[0]) else _to_host(out, "copy to the host")

    def _cuda_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Tensor:
        return _to_card(args[0], waits=True)

    def _cpu_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Tensor:
        return _to_host(args[0], "copy to the host")

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
        return _to_host(args[0], "tolist").tolist() if isinstance(args[0], CardTensor) else func(*args)

    def _equal_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> bool:
        if isinstance(args[0], CardTensor) != isinstance(args[1], CardTensor):
            raise RuntimeError("Expected all tensors to be on the same device: equal(cuda:0, cpu)")
        return func(*(_to_host(tensor, "equal") for tensor in args[:2]))

    def _new_tensor_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Tensor:
        if not isinstance(args[0], CardTensor):
            return func(*args, **named)
        named.pop("device", None)
        return _to_card(args[0].host.new_tensor(*args[1:], **named), waits=True)

    def _data_ptr_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> int:
        return func(_unwrapped(args[0]))

    def _record_stream_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> None:
        return None

    def _copy_(self, func: Any, args: Sequence[Any], named: dict[str, Any]) -> Tensor:
        into, source, *rest = args
        if not isinstance(source, Tensor) or isinstance(into, CardTensor) == isinstance(source, CardTensor):
            return func(*args, **named)
        host = source if isinstance(into, CardTensor) else into
        calm = (named.get("non_blocking") or rest == [True]) and getattr(host, "is_page_locked", False)
        if not calm:
            _GPU.wait("copy between devices")
        _unwrapped(into).copy_(_unwrapped(source))
        return into


class _Event:
    """A mark in the stream; waiting for it is free where something later was waited for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.number = 0

    def record(self, *args: Any) -> None:
        _GPU.events += 1
        self.number = _GPU.events

    def synchronize(self) -> None:
        if self.number > _GPU.reached:
            _GPU.wait("event", self.number)

    def query(self) -> bool:
        return self.number <= _GPU.reached


class _Graph:
    """A CUDA graph: the recorded operations run again, into the memory that they had."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        _GPU.launch("graph")
        with torch.no_grad():
            for func, args, kwargs, out in self.operations:
                again = func(*args, **kwargs)
                if not func._schema.is_mutable and not func.is_view:
                    for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                        if isinstance(old, Tensor) and old is not new:
                            old.copy_(new)

    def pool(self) -> tuple[int, int]:
        return 0, 0

    def reset(self) -> None:
        self.operations = []


@contextlib.contextmanager
def _recorded(graph: _Graph, **kwargs: Any) -> Iterator[None]:
    """Inside the block operations go into the graph. Here they also run, which changes nothing in what a
    replay finds: callers fill the graph's memory before every replay."""
    _GPU.recording = graph
    try:
        yield
    finally:
        _GPU.recording = None


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


class _Stream:
    def wait_stream(self, other: object) -> None:
        pass

    def synchronize(self) -> None:
        _GPU.wait("stream")


def _grouped(lists: list[list[Any]], with_indices: bool = False) -> dict[Any, Any]:
    """Optimizers ask torch's own code for devices, which sees where the memory is."""
    found = torch._C._group_tensors_by_device_and_dtype(lists, with_indices)
    on_card = any(isinstance(tensor, CardTensor) for tensor in lists[0])
    return {(CARD if on_card else device, dtype): group for (device, dtype), group in found.items()}


def _stands_ins() -> list[tuple[Any, str, Any]]:
    """(owner, name, what stands there while the card is pretended)."""
    nothing: Callable[..., None] = lambda *args, **kwargs: None  # noqa: E731
    cuda: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_current_stream_capturing": lambda: _GPU.recording is not None,
        "mem_get_info": lambda *args: (70 << 30, 80 << 30),
        "get_device_name": lambda *args: "pretended",
        "get_device_properties": lambda *args: types.SimpleNamespace(name="pretended", total_memory=80 << 30),
        "max_memory_allocated": lambda *args: 0,
        "synchronize": lambda *args: _GPU.wait("synchronize"),
        "Event": _Event,
        "CUDAGraph": _Graph,
        "graph": _recorded,
        "Stream": _Stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda *args: _Stream(),
        **dict.fromkeys(("empty_cache", "reset_peak_memory_stats", "manual_seed_all"), nothing),
        "set_sync_debug_mode": nothing,
    }
    checks = [name for name in dir(torch.optim.Optimizer) if name.endswith("graph_capture_health_check")]
    return [
        *((torch.cuda, name, value) for name, value in cuda.items()),
        *((torch.optim.Optimizer, name, nothing) for name in checks),
        (torch, "autocast", _Autocast),
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
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.enter_context(_Calls())
        yield _GPU
