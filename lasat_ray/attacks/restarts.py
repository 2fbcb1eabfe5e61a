"""Attacks from several starts, as many as each image's strategy asks for; the worst one is kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lasat_ray.attacks.ball import per_image
from lasat_ray.attacks.objectives import Objective, Rows
from lasat_ray.process_group import to_device
from lasat_ray.rng import RandomKey

AttackRows = Callable[[Tensor, Tensor, RandomKey, Objective], Tensor]
"""(rows [S] of the batch, on the host and on the device, the key of their starts, what they raise) -> their
x_adv [S,C,H,W]."""


def worst_restart(
    net: nn.Module,
    objective: Objective,
    first: Tensor,
    restarts_B: Tensor,
    key: RandomKey,
    attack: AttackRows,
) -> Tensor:
    """For each image the attack of ``restarts_B`` [B] int64, on the host, that raises ``objective`` most; of
    equals the earlier. ``first`` [B,C,H,W]: what the attacks from the first start found.

    An image that asks for r > 1 is attacked r - 1 times more and looked at r times, without a gradient; one
    that asks for 1 costs nothing. Restart j of an image starts where ``key`` and j say, whatever the others
    ask for, so that a batch equals its images one by one. The caller holds the net still.
    """
    most = int(restarts_B.max()) if len(restarts_B) else 1
    if most < 2:
        return first
    x_adv, worst_B = first.clone(), first.new_zeros(len(first))
    rows = to_device((restarts_B > 1).nonzero()[:, 0], first.device)
    worst_B[rows] = _values(net, objective, x_adv[rows], rows)
    for restart in range(1, most):
        places = (restarts_B > restart).nonzero()[:, 0]
        rows = to_device(places, first.device)
        found = attack(places, rows, key.fold_in("restart", restart), _objective_of(objective, rows))
        value, before = _values(net, objective, found, rows), worst_B[rows]
        better = value > before
        # Written for all rows: of those that are better alone the host would have to know the number.
        x_adv[rows] = torch.where(per_image(better, found), found, x_adv[rows])
        worst_B[rows] = torch.where(better, value, before)
    return x_adv


def _values(net: nn.Module, objective: Objective, x: Tensor, rows: Tensor) -> Tensor:
    with torch.no_grad():
        return objective(net(x), rows).to(x.dtype)


def _objective_of(objective: Objective, chosen: Tensor) -> Objective:
    """What the images ``chosen`` [S] raise, by their places among themselves."""

    def of_chosen(logits: Tensor, rows: Rows) -> Tensor:
        return objective(logits, chosen[rows])

    return of_chosen
