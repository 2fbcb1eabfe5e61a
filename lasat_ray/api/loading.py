"""``lasat_ray.load_model``, and what the other functions take for a net."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lasat_ray.api.results import TrainResult
from lasat_ray.api.words import in_python
from lasat_ray.config.urls import is_url
from lasat_ray.errors import UsageError
from lasat_ray.evaluation.carried import carried
from lasat_ray.models import Classifier
from lasat_ray.models.given import PREFIX, spell
from lasat_ray.runs.load import checkpoint_file, load_checkpointed
from lasat_ray.runs.mirror import named_run

Source = str | Path | TrainResult
"""A run folder or its URL, a checkpoint file, or what ``train`` gave back."""


@in_python
def load_model(
    source: Source,
    /,
    *,
    which: str = "best",
    device: str | torch.device = "cpu",
    trust: bool = False,
    net: nn.Module | Callable[..., nn.Module] | None = None,
) -> nn.Module:
    """The net of a run or a checkpoint: x [B,C,H,W] in [0,1] -> logits [B,N].

    In evaluation mode, its weights needing no gradient. ``source``: a run folder, a checkpoint file, or what
    ``train`` gave back. ``which``: best (on validation) or last, for a run; a run that never validated has
    only last. Where weights were averaged, the average is the net. A net from ``module:function`` runs that
    code and needs ``trust``; one that was given as an object is given again as ``net``. ``.classes`` of the
    net are the names of its logits; its ``.card`` says what else is known: image_shape (C,H,W), the norm and
    eps that it was made to withstand, accuracies.

    UserError or UsageError in one line for anything that is no such file.
    """
    loaded, _ = load_with_card(source, which=which, device=device, trust=trust, net=net)
    return loaded


def load_with_card(
    source: Source,
    *,
    which: str = "best",
    device: str | torch.device = "cpu",
    trust: bool = False,
    net: Any = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The net and its card; UsageError where ``net`` is another than the run's."""
    named = None if net is None else spell(net)
    path, trusted = path_of(source)
    trust = trust or trusted or bool(named and not named.startswith(PREFIX))
    loaded, card = load_checkpointed(path, which=which, device=device, trust=trust)
    assert isinstance(loaded, Classifier)
    loaded.card = carried(loaded, card, checkpoint_file(path, which))
    if named not in (None, card["model"]):
        raise UsageError(
            f"net: is '{named}' and the run's is '{card['model']}'; give the net it was trained with"
        )
    return loaded, card


def path_of(source: Source) -> tuple[Path, bool]:
    """Where a source lies (of a URL what was brought from there), and whether its code is this process's
    own."""
    if isinstance(source, TrainResult):
        return source.folder, True
    return Path(named_run(str(source))), False


def is_stored(net: object) -> bool:
    """Whether ``net`` stands for a run or a file, not for a module or a name of one."""
    return isinstance(net, (TrainResult, Path)) or (
        isinstance(net, str) and (is_url(net) or Path(net).exists())
    )
