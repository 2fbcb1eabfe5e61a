"""Attacks spread over workers by their planned steps: who has the most lends images to who has the least.

Workers wait for the one whose images take the most steps together. An attack on one image needs the
target net's weights, which all workers share, and no other image, so it can be made anywhere; the
training step stays at home, where batch statistics are those of the worker's own images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lasat_ray.process_group import ProcessGroup, to_device, to_host
from lasat_ray.types import Batch, Strategy

Loan = tuple[int, int, int]
"""An image's attack: lender, borrower, steps."""

Part = TypeVar("Part", Batch, Strategy)


def plan_loans(images_WS: np.ndarray) -> list[Loan]:
    """Which attacks move between W workers; ``images_WS`` int64: each worker's images by step count.

    Again and again the worker with the most steps is paired with the one with the fewest, the second
    most with the second fewest, and so on; in each pair the richer lends the one image that brings
    both nearest to each other, until nobody has one that would.
    """
    own_WS, size_S = images_WS.copy(), np.arange(images_WS.shape[1])
    load_W, half = own_WS @ size_S, len(own_WS) // 2
    loans: list[Loan] = []
    while True:
        order_W = np.argsort(load_W, kind="stable")
        lender_P, borrower_P = order_W[::-1][:half], order_W[:half]
        gap_P1 = (load_W[lender_P] - load_W[borrower_P])[:, None]
        fits_PS = (own_WS[lender_P] > 0) & (size_S > 0) & (size_S < gap_P1)
        steps_P = np.where(fits_PS, np.abs(2 * size_S - gap_P1), np.iinfo(np.int64).max).argmin(1)
        lends_P = fits_PS.any(1)
        if not lends_P.any():
            return loans
        lender, borrower, steps = lender_P[lends_P], borrower_P[lends_P], steps_P[lends_P]
        own_WS[lender, steps] -= 1  # what is borrowed is not lent on
        load_W[lender] -= steps
        load_W[borrower] += steps
        loans += zip(lender.tolist(), borrower.tolist(), steps.tolist(), strict=True)


def attack_balanced(
    group: ProcessGroup, attack: Callable[[Batch, Strategy], Tensor], batch: Batch, strategy: Strategy
) -> Tensor:
    """``attack(batch, strategy)`` -> x_adv [B,C,H,W], some images' on another worker; all workers call it.

    ``attack`` may look at each image alone. Two small messages, and two with the images that move.
    """
    starts_B = 1 if strategy.restarts is None else strategy.restarts
    rows = _rows_to_lend(group, strategy.num_steps * starts_B, batch.global_size)
    if rows is None:
        return attack(batch, strategy)
    ours, theirs = _rows_of(batch, rows.stay), _rows_of(batch, rows.lent)
    theirs, their_strategy = _travel(group, rows, theirs, strategy[rows.lent])
    x_adv = attack(_joined(ours, theirs), _joined(strategy[rows.stay], their_strategy))
    whole = torch.empty_like(batch.x)
    whole[rows.stay] = x_adv[: len(rows.stay)]
    whole[rows.lent] = group.all_to_all(x_adv[len(rows.stay) :], rows.receive, rows.send)
    return whole


@dataclass(frozen=True, slots=True)
class _Rows:
    """Own rows that ``stay`` and that are ``lent``, by borrower; images to ``send`` to each worker and to
    ``receive`` from it."""

    stay: Tensor
    lent: Tensor
    send: list[int]
    receive: list[int]


def _rows_to_lend(group: ProcessGroup, num_steps_B: Tensor, global_size: int) -> _Rows | None:
    """This worker's part of the plan; None where nobody lends anything."""
    if group.size == 1:
        return None
    steps_N = to_host(group.gather(num_steps_B, global_size)).numpy()
    spans = [ProcessGroup(rank, group.size).shard_bounds(global_size) for rank in range(group.size)]
    longest = int(steps_N.max()) + 1
    worker_N = np.repeat(np.arange(group.size), [end - first for first, end in spans])
    flat = np.bincount(worker_N * longest + steps_N, minlength=group.size * longest)
    loans = plan_loans(flat.reshape(group.size, longest))
    if not loans:
        return None
    mine_B = steps_N[slice(*spans[group.rank])]
    with_steps = {steps: np.flatnonzero(mine_B == steps).tolist() for steps in set(mine_B.tolist())}
    send, receive, lent = [0] * group.size, [0] * group.size, []
    for lender, borrower, steps in sorted(loans, key=lambda loan: loan[1]):
        receive[lender] += borrower == group.rank
        if lender == group.rank:
            send[borrower] += 1
            lent.append(with_steps[steps].pop())
    stay, device = np.setdiff1d(np.arange(len(mine_B)), lent), num_steps_B.device
    kept, sent = (to_device(torch.as_tensor(part).long(), device) for part in (stay, lent))
    return _Rows(kept, sent, send, receive)


def _travel(group: ProcessGroup, rows: _Rows, batch: Batch, strategy: Strategy) -> tuple[Batch, Strategy]:
    """Send what is lent, get what is borrowed: one message of pixels, one of everything else."""
    numbers = {f"batch {name}": value for name, value in _tensors(batch) if name != "x"}
    numbers |= {f"strategy {name}": value for name, value in _tensors(strategy)}
    # float64 holds every float32, and every row number below 2^53; a label [B,N] is N columns.
    wide = [value.double() if value.ndim > 1 else value.double()[:, None] for value in numbers.values()]
    table, widths = torch.cat(wide, 1), [value.shape[1] for value in wide]
    columns = group.all_to_all(table, rows.send, rows.receive).split(widths, 1)
    got = {
        name: (new if old.ndim > 1 else new[:, 0]).to(old.dtype)
        for (name, old), new in zip(numbers.items(), columns, strict=True)
    }
    pixels = group.all_to_all(batch.x, rows.send, rows.receive)
    return (
        dataclasses.replace(batch, x=pixels, **_named(got, "batch ")),
        dataclasses.replace(strategy, **_named(got, "strategy ")),
    )


def _named(values: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): v for name, v in values.items() if name.startswith(prefix)}


def _tensors(part: Batch | Strategy) -> list[tuple[str, Tensor]]:
    pairs = [(f.name, getattr(part, f.name)) for f in dataclasses.fields(part)]
    return [(name, value) for name, value in pairs if isinstance(value, Tensor)]


def _rows_of(batch: Batch, rows: Tensor) -> Batch:
    picked: dict[str, Any] = {name: value[rows] for name, value in _tensors(batch)}
    return dataclasses.replace(batch, **picked)


def _joined(ours: Part, theirs: Part) -> Part:
    both = zip(_tensors(ours), _tensors(theirs), strict=True)
    joined: dict[str, Any] = {name: torch.cat([a, b]) for (name, a), (_, b) in both}
    return dataclasses.replace(ours, **joined)
