"""One file per checkpoint: tensors as safetensors, everything else as JSON in its header.

Loading executes no code. A checksum over all content tells a damaged file; writing goes to a
temporary file that is renamed when it is safely on disk, so a crash leaves the old one whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lasat_ray.config.files import check_regular
from lasat_ray.errors import UserError, described, not_written

FORMAT = "lasat-ray checkpoint 1"


def save_checkpoint(path: Path, tree: dict[str, Any]) -> None:
    """Write nested dicts, lists and tuples of tensors (any shape), numbers, strings and None.

    UserError where the file cannot be written; TypeError for anything else in the tree.
    """
    tensors: dict[str, Tensor] = {}
    header = json.dumps(_encode(tree, "", tensors), allow_nan=True)
    metadata = {"format": FORMAT, "tree": header, "sha256": _checksum(tensors, header)}
    write_atomically(path, save(tensors, metadata=metadata))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The tree that was saved, tensors on the CPU.

    Raises UserError in one line when the file is missing, damaged, or not a checkpoint of ours.
    """
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint; name a run folder or a checkpoint file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole checkpoint ({error}); use an older one") from error
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "no format")
        raise UserError(f"{path}: written as {found!r}, this program reads '{FORMAT}'; name another file")
    if _checksum(tensors, metadata.get("tree", "")) != metadata.get("sha256"):
        raise UserError(f"{path}: content does not match its checksum; use an older checkpoint")
    try:
        tree = _decode(json.loads(metadata["tree"]), tensors)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        told = described(error)
        raise UserError(f"{path}: its contents are not a checkpoint's ({told}); use another one") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds no named contents; use another checkpoint")
    return tree


@contextmanager
def restoring(source: object) -> Iterator[None]:
    """UserError naming ``source`` where a whole checkpoint holds other things than are taken from it."""
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
        told = described(error)
        raise UserError(
            f"{source}: the checkpoint does not fit its config.json ({told}); restore both from one run"
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """All of ``content`` under ``path``, or what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:  # Ctrl-C too
        with suppress(OSError):  # a disk that turned read-only keeps it; the next command removes it
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise not_written(path, error) from error
        raise


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder onto the disk: a file that is synced may still be without its own.

    OSError where the disk refuses; a file system that cannot sync folders is left to its own ways.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder that may be written and not read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _encode(node: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON with a type tag at each container; keys may be integers, as in optimizer states."""
    if isinstance(node, Tensor):
        while name in tensors:  # keys such as 1 and "1" spell the same name
            name += "'"
        # clone: safetensors refuses tensors that share memory.
        tensors[name] = node.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(node, dict):
        return {"dict": [[key, _encode(value, f"{name}/{key}", tensors)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        kind = "list" if isinstance(node, list) else "tuple"
        return {kind: [_encode(value, f"{name}/{n}", tensors) for n, value in enumerate(node)]}
    if node is None or isinstance(node, (bool, int, float, str)):
        return node
    raise TypeError(f"checkpoint: {name or '/'} is a {type(node).__name__}; keep tensors and numbers")


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _decode(value, tensors) for key, value in content}
    if kind not in ("list", "tuple"):
        raise ValueError(f"unknown kind '{kind}'")
    items = [_decode(value, tensors) for value in content]
    return items if kind == "list" else tuple(items)


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor's values in their order, whatever its strides and device.

    A copy: one element of an expanded tensor counts as contiguous with a stride of 0, which no view of
    bytes takes.
    """
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.detach().reshape(-1))
    return flat.view(torch.uint8).numpy().data


def _checksum(tensors: dict[str, Tensor], header: str) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()
