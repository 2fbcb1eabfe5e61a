"""AutoAttack by its own package, ``pyautoattack``: one chunk, one seed, nothing of ours in between."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lasat_ray.errors import UsageError
from lasat_ray.types import Batch

NORM_NAMES = {"linf": "Linf", "l2": "L2"}
_FEWEST_CLASSES = {"apgd-t": 4, "apgd-dlr": 3}  # the (targeted) DLR loss needs its 3 (4) largest logits
VERSION_COMPONENTS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}


def auto_attack(
    net: nn.Module,
    batch: Batch,
    *,
    version: str,
    only: str = "",
    eps: float,
    norm: str,
    seed: int,
    queries: int = 5000,
    as_far: bool = False,
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """(x_adv [B,C,H,W], fooled [B] bool, the package's warnings) for a frozen net.

    ``version``: standard, plus or rand; ``only``: one of its components, with the settings that it
    has in the standard version; ``as_far``: leave out the components that need more classes. ``eps`` in
    [0,1] pixels. Images that nothing fooled are clean in ``x_adv``. The caller's random state is
    untouched. UsageError for nets with too few classes.
    """
    import pyautoattack  # a second to import, and other attacks never need it

    with torch.no_grad():
        num_classes = net(batch.x[:1]).shape[1]
    adversary = pyautoattack.AutoAttack(
        net, norm=NORM_NAMES[norm], eps=eps, seed=seed, version=version, device=batch.x.device
    )
    if only:
        adversary.attacks_to_run = [only]
    if as_far:
        left_out = too_few_for(version, num_classes)
        adversary.attacks_to_run = [name for name in adversary.attacks_to_run if name not in left_out]
    check_classes(adversary.attacks_to_run, num_classes)
    # Each other class once; the package assumes ten classes and would ask for the ninth of fewer.
    adversary.apgd_targeted.n_target_classes = min(9, num_classes - 1)
    adversary.fab.n_target_classes = min(9, num_classes - 1)
    adversary.square.n_queries = queries
    devices = [batch.x.device] if batch.x.device.type == "cuda" else []
    with _warnings() as told, torch.random.fork_rng(devices=devices):
        x_adv, y_adv = adversary.run_standard_evaluation(batch.x, batch.y, batch_size=len(batch.x))
    # Not judged anew: batches of another size could round an image on the edge the other way.
    return x_adv.detach(), y_adv != batch.y, tuple(dict.fromkeys(told))


def too_few_for(version: str, num_classes: int) -> list[str]:
    """The components of a version that nets with so few classes cannot be put to."""
    return [name for name in VERSION_COMPONENTS[version] if num_classes < _FEWEST_CLASSES.get(name, 2)]


def check_classes(components: Iterable[str], num_classes: int) -> None:
    """UsageError naming the first component that needs more classes."""
    for name in components:
        fewest = _FEWEST_CLASSES.get(name, 2)
        if num_classes < fewest:
            raise UsageError(
                f"--attacks: {name} of AutoAttack needs {fewest} classes and the net has {num_classes}; "
                "use pgd-STEPS, apgd-ce and square"
            )


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the package's logger warns of inside the block; nothing is printed."""
    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage().strip())  # type: ignore[method-assign]
    logger = logging.getLogger("auto-attack")
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield told
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
