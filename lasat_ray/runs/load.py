"""A trained net from a run folder or a checkpoint, ready to be evaluated, and files of weights.

No file is trusted: checkpoints are safetensors and JSON, foreign weights are read with
``torch.load(weights_only=True)`` or as safetensors, and code that a checkpoint names is imported
only with ``trust``.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lasat_ray.config.files import check_regular
from lasat_ray.errors import UsageError, UserError
from lasat_ray.models import architecture, build_classifier
from lasat_ray.runs.cards import check_card, read_exported
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.trust import names_code

WHICH = ("best", "last")
EXPORTED = "model.safetensors"
"""The weights in a folder that was made for other programs."""
UNUSED = "num_batches_tracked"
"""Ends keys that no forward pass in evaluation mode reads."""


def load_model(
    path: str | Path, *, which: str = "best", device: str | torch.device = "cpu", trust: bool = False
) -> nn.Module:
    """The net of a run folder or of one checkpoint file: x [B,C,H,W] in [0,1] -> logits [B,N].

    In evaluation mode, its weights needing no gradient. ``which``: best (on validation) or last,
    for a run folder; a run that never validated has only last. Where weights were averaged, the
    average is the net. A net from ``module:function`` runs that code and needs ``trust``.
    UserError in one line for anything that is not such a file.
    """
    net, _ = load_checkpointed(path, which=which, device=device, trust=trust)
    return net


def load_checkpointed(
    path: str | Path,
    *,
    which: str = "best",
    device: str | torch.device = "cpu",
    trust: bool = False,
    known: Collection[str | None] = (),
) -> tuple[nn.Module, dict[str, Any]]:
    """The net as ``load_model`` gives it, and its card: model, num_classes, image_shape (C,H,W), ...

    UserError where the file holds no target net with a card, UsageError where its net is code, ``trust`` is
    not given, and it is none of ``known``, which the user named elsewhere.
    """
    file = checkpoint_file(Path(path), which)
    card, weights = read_checkpointed(file)
    name = card["model"]
    if names_code(name) and not trust and name not in known:
        raise UsageError(f"{file}: its net is code, '{name}'; if you trust it, pass trust=True (--trust)")
    build = partial(
        build_classifier,
        architecture(name),
        num_classes=card["num_classes"],
        image_shape=tuple(card["image_shape"]),
        precision=card["precision"],
        field=str(file),
    )
    if ":" not in name:
        with torch.device("meta"):  # a forged card names a net that would fill the memory
            check_fit(build(), weights, str(file))
    net = build()
    fill(net, weights, str(file))
    net.classes = tuple(card.get("class_names", ()))
    net.card = dict(card)
    return ready(net, device), card


def read_checkpointed(file: Path) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """The card of the net in a checkpoint of ours and its weights, of the average where there is one; no net
    is built. UserError where the file holds no target net with a card."""
    if (exported := read_exported(file)) is not None:
        return exported
    tree = load_checkpoint(file)
    card, weights = tree.get("card"), tree.get("target_net")
    average = tree.get("average")
    if isinstance(average, dict):
        weights = average.get("net")
    if not isinstance(card, dict) or not is_state_dict(weights):
        raise UserError(f"{file}: holds no target net with its card; name best or last of a run folder")
    check_card(card, file)
    return card, weights


def checkpoint_file(path: Path, which: str = "best") -> Path:
    """The checkpoint that a run folder or file name stands for; UserError if there is none."""
    if which not in WHICH:
        raise UsageError(f"which: '{which}' is no checkpoint of a run; choose one of: {', '.join(WHICH)}")
    if not path.exists():
        raise UserError(f"{path}: no such run folder or checkpoint; check the path")
    if path.is_file():
        return path
    files = [path / "checkpoints" / f"{name}.safetensors" for name in (which, "last")]
    files.append(path / EXPORTED)
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise UserError(f"{path}: holds no checkpoint; name the folder of a run that trained at least once")
    return found


def read_weights(file: Path) -> dict[str, Tensor]:
    """The state dict in a file from elsewhere; executes nothing that the file contains."""
    check_regular(file)
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:
            check_stored(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file of weights; check the path") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file}: holds more than tensors, which is not loaded; save its state_dict() alone"
        ) from error
    except UserError:
        raise
    except Exception as error:  # on arbitrary bytes torch raises KeyError, IndexError, struct.error, ...
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{file}: not a file of weights ({told[0]}); save it anew") from error
    for key in ("last", "state_dict", "model_state_dict", "model", "net"):  # "last": as RobustBench chooses
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not is_state_dict(content):
        raise UserError(f"{file}: holds no state dict; save net.state_dict() with torch.save")
    return dict(content)


def is_state_dict(content: Any) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether an object is a dict of names and tensors and nothing else."""
    return isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def check_stored(file: Path) -> None:
    """UserError for a decompression bomb: torch.save packs nothing, and so may nobody else."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as members:
        for member in members.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > file.stat().st_size:
                raise UserError(
                    f"{file}: '{member.filename}' in it is compressed, which torch.save never does; "
                    "save the weights anew"
                )


def fill(net: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into ``net``; UserError naming ``source`` and the first key that does not fit."""
    check_fit(net, weights, source)
    net.load_state_dict({**net.state_dict(), **weights})


def check_fit(net: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """UserError naming ``source`` and the first key of ``weights`` that does not fit the net."""
    own = net.state_dict()
    wanted = [key for key in own if not key.endswith(UNUSED)]
    for key in wanted:
        if key not in weights:
            raise UserError(f"{source}: weight '{key}' is missing; this file is of another architecture")
        if weights[key].shape != own[key].shape:
            shapes = f"{list(weights[key].shape)}, the net has {list(own[key].shape)}"
            raise UserError(f"{source}: weight '{key}' is {shapes}; this file is of another architecture")
    if unknown := [key for key in weights if key not in own]:
        raise UserError(f"{source}: weight '{unknown[0]}' has no place in the net; choose another --model")


def ready(net: nn.Module, device: str | torch.device) -> nn.Module:
    """On the device, in evaluation mode, no weight needing a gradient."""
    return net.to(device).eval().requires_grad_(False)
