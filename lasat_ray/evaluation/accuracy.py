"""Accuracy on clean images, under random-start PGD and under FGSM, each worker on its own rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from lasat_ray.attacks import attack_batch, constant_strategy
from lasat_ray.config import EvalConfig
from lasat_ray.data import Images, ordered_batches
from lasat_ray.models import frozen_eval
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey

View = Callable[[nn.Module, Tensor], nn.Module]
"""(net, images [B,C,H,W]) -> a net that is the same function up to rounding."""


def accuracy(
    net: nn.Module,
    images: Images,
    num_steps: int | Literal["fgsm"],
    settings: EvalConfig,
    *,
    seed: int,
    group: ProcessGroup,
    device: torch.device,
    dtype: torch.dtype,
    beat: Callable[[], object] = lambda: None,
    view: View | None = None,
) -> float:
    """Share of images classified correctly after PGD on cross-entropy (Madry et al. 2018); in [0,1].

    ``images`` x uint8 [N,C,H,W]; ``settings``: budget and step in [0,1] pixels, their norm, and how many
    images are attacked at once. ``num_steps`` 0 means clean images, ``fgsm`` one step as long as the budget
    from the image itself (Goodfellow et al. 2015). The start of each image depends on its
    row and the seed alone, so the number of workers does not change the result. NaN for an empty set.
    ``beat`` is called before every batch. ``view`` gives the attack a cheaper net of the same function; the
    net itself has the last word.
    """
    rows = torch.arange(len(images))[group.rank :: group.size]  # none where there are fewer images than ranks
    key = RandomKey.of(seed, "evaluation start", num_steps)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with frozen_eval(net):
        for batch in ordered_batches(
            images, batch_size=settings.batch_size, device=device, dtype=dtype, rows=rows
        ):
            beat()
            x = batch.x
            if num_steps:
                steps, size = (1, settings.eps) if num_steps == "fgsm" else (num_steps, settings.step_size)
                strategy = constant_strategy(x, eps=settings.eps, num_steps=steps, step_size=size)
                start = "zero" if num_steps == "fgsm" else "uniform"
                seen = view(net, x) if view else net
                x = attack_batch(seen, batch, strategy, key, loss="ce", start_kind=start, norm=settings.norm)
            with torch.no_grad():
                correct += (net(x).argmax(1) == batch.y).sum()
    total = int(group.sum(correct))
    return total / len(images) if len(images) else float("nan")
