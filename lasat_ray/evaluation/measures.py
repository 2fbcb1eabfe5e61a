"""What the sanity check measures on a net without attacking it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lasat_ray.attacks.objectives import cross_entropy
from lasat_ray.types import Batch


def measure(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Per image, each [B]: how the logits f vary. The net is frozen.

    ``gradient``: largest |d cross-entropy / d pixel|; ``repeat``: largest difference of two passes
    on the same image; ``range``: largest |f(x) - f(1 - x)|; ``bend``: how far f in the middle
    of x and 1 - x is from the mean of both (0 for an affine net); ``alone``: largest difference of the
    batch's first image, by itself and beside its negative, the same number for all; ``size``: largest |f|;
    ``lowest``: smallest logit; ``total``: sum of logits (1 for probabilities).
    """
    x = batch.x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = net(x)
        loss = cross_entropy(logits, batch.y).sum()
        # A constant net has no graph at all: its gradient is zero.
        grad = torch.autograd.grad(loss, x)[0] if loss.requires_grad else torch.zeros_like(x)
    with torch.no_grad():
        here, again, there = logits.detach(), net(batch.x), net(1 - batch.x)
        middle = net(torch.full_like(batch.x, 0.5))
        first = batch.x[:1]
        alone = (net(first) - net(torch.cat([first, 1 - first]))[:1]).abs().amax()
        return {
            "gradient": grad.abs().flatten(1).amax(1),
            "repeat": (here - again).abs().amax(1),
            "range": (here - there).abs().amax(1),
            "bend": (middle - (here + there) / 2).abs().amax(1),
            "alone": alone.expand(len(batch.x)).clone(),
            "size": here.abs().amax(1),
            "lowest": here.amin(1),
            "total": here.sum(1),
        }
