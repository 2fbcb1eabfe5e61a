"""Adversarial weight perturbation around any method's loss (Wu, Xia and Wang 2020, eq. 8-12).

The weights climb the loss first, each tensor by gamma of its own norm; gradient and optimizer
step are taken there; then the climb is subtracted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lasat_ray.models import batch_norm_state
from lasat_ray.process_group import ProcessGroup

TINY = 1e-20  # keeps a gradient of zero from dividing by zero

WeightPerturbation = dict[str, Tensor]
"""What is added to each perturbed parameter, by name."""


def perturbed_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that AWP perturbs: weights of more than one dimension that learn."""
    named = net.named_parameters()
    return {name: p for name, p in named if "weight" in name and p.ndim > 1 and p.requires_grad}


def awp_perturbation(
    net: nn.Module,
    loss: Callable[[], Tensor],
    gamma: float | Tensor,
    global_size: int,
    group: ProcessGroup,
    *,
    frozen: Sequence[nn.Module] = (),
) -> tuple[WeightPerturbation, Tensor]:
    """gamma ||w|| g / ||g|| for each tensor, g the gradient of the mean loss over the global batch.

    Also returns the loss of each image at the unperturbed weights, [B]. ``loss`` runs the net as it
    is; its BatchNorm statistics, and those of the nets in ``steady``, are put back as they were.
    The proxy net of the published code and its learning rate cancel out of this.
    """
    statistics = [buffer for each in (net, *frozen) for buffer in batch_norm_state(each)]
    kept = [buffer.clone() for buffer in statistics]
    weights = perturbed_parameters(net)
    loss_B = loss()
    found = torch.autograd.grad(loss_B.sum() / global_size, list(weights.values()), allow_unused=True)
    with torch.no_grad():
        for buffer, value in zip(statistics, kept, strict=True):
            buffer.copy_(value)
        pairs = zip(weights.values(), found, strict=True)
        gradients = [torch.zeros_like(w) if g is None else g.contiguous() for w, g in pairs]
        group.sum_in_place(gradients)
        perturbation = {
            name: gamma * w.norm() / (g.norm() + TINY) * g
            for (name, w), g in zip(weights.items(), gradients, strict=True)
        }
    return perturbation, loss_B.detach()


@contextmanager
def perturbed(net: nn.Module, perturbation: WeightPerturbation) -> Iterator[None]:
    """Inside the block the weights stand at w + climb; afterwards climb is subtracted from what
    they have become, so a step taken inside remains."""
    weights = perturbed_parameters(net)
    _add(weights, perturbation, 1.0)
    try:
        yield
    finally:
        _add(weights, perturbation, -1.0)


@torch.no_grad()
def _add(weights: dict[str, nn.Parameter], perturbation: WeightPerturbation, sign: float) -> None:
    for name, change in perturbation.items():
        weights[name].add_(change, alpha=sign)
