"""The tensors of a card that pretends: CPU memory that reports ``cuda:0`` and refuses to be mixed with the
host's, and the counts of what would launch a kernel or make the host wait. ``pretended_gpu`` puts
them in place.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch._dynamo  # before anything is replaced: it lists torch's functions
from torch import Tensor
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
        self.recording: CardGraph | None = None
        self.events = self.reached = 0
        self.watched = "default"
        """As ``torch.cuda.set_sync_debug_mode`` was told: warn and error tell of waits."""

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
        if self.watched != "default" and kind not in ("event", "synchronize"):  # CUDA tells of no others
            if self.watched == "error":
                raise RuntimeError(f"called a synchronizing CUDA operation ({kind})")
            warnings.warn(f"called a synchronizing CUDA operation ({kind})", stacklevel=3)
        if self.counts is not None:
            self.counts.waits[kind, _place()] += 1


GPU = PretendedGPU()  # of the process; it has no effect outside of ``pretended_gpu``


def _place() -> str:
    """The two innermost places of the project that led here, beyond the file that all copies pass."""
    frame, found = sys._getframe(2), []
    while frame is not None and len(found) < 2:
        name = frame.f_code.co_filename
        root = next((root for root in _ROOTS if root in name and "site-packages" not in name), None)
        if root and not name.endswith("/process_group.py"):
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
            GPU.launch("deepcopy")
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
    inner_args, inner_kwargs = tree_map(unwrapped, args), tree_map(unwrapped, kwargs)
    out = func(*inner_args, **inner_kwargs)
    if GPU.recording is not None:
        GPU.recording.operations.append((func, inner_args, inner_kwargs, out))
    own = {id(unwrapped(tensor)): tensor for tensor in given}  # what works in place returns its argument
    return tree_map(lambda leaf: own[id(leaf)] if id(leaf) in own else _wrapped(leaf), out)


def _check_devices(func: Any, name: str, args: Sequence[Any], given: list[Tensor]) -> None:
    """As CUDA: numbers of no dimension may come from the host, and indices of a card's tensor."""
    host = [tensor for tensor in given if not isinstance(tensor, CardTensor) and tensor.dim() > 0]
    scalars = [tensor for tensor in given if not isinstance(tensor, CardTensor) and tensor.dim() == 0]
    if name in ("_to_copy", "copy_", "_local_scalar_dense") or not (host or scalars):
        return
    if host and name in _INDEXING and isinstance(args[0], CardTensor):
        return GPU.wait("index from the host")
    if host or name in ("stack", "cat"):
        shapes = [tuple(tensor.shape) for tensor in host or scalars]
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found cuda:0 and cpu {shapes} in {func}"
        )


def _count(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    if name == "_local_scalar_dense":
        GPU.wait("item")
    elif name in _WAITING or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        GPU.wait(name)
    elif name in _INDEXING and _needs_count(name, args):
        GPU.wait(f"{name} by a mask")
    if name not in _VIEWS and not func.is_view and name != "_local_scalar_dense":
        GPU.launch(name)


def _needs_count(name: str, args: Sequence[Any]) -> bool:
    """Whether the host has to know how many places a mask has; not where one number is written there."""
    masked = any(index is not None and index.dtype == torch.bool for index in args[1])
    return masked and ("put" not in name or args[2].numel() != 1)


def unwrapped(leaf: Any) -> Any:
    return leaf.host if isinstance(leaf, CardTensor) else leaf


def _wrapped(leaf: Any) -> Any:
    return CardTensor(leaf) if isinstance(leaf, Tensor) and not isinstance(leaf, CardTensor) else leaf


def names_card(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def to_card(tensor: Tensor, *, waits: bool, kind: str = "copy from pageable memory") -> Tensor:
    if isinstance(tensor, CardTensor):
        return tensor
    if waits:
        GPU.wait(kind)
    made = CardTensor(tensor.detach().clone())
    return made.requires_grad_() if tensor.requires_grad else made


def to_host(tensor: Tensor, kind: str) -> Tensor:
    if not isinstance(tensor, CardTensor):
        return tensor
    GPU.wait(kind)
    return tensor.host.detach().clone()


class CardGraph:
    """A CUDA graph: the recorded operations run again, into the memory that they had."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        GPU.launch("graph")
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
