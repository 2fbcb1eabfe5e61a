"""``lasat_ray.attack``: adversarial images from any net, by any of the attacks here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lasat_ray.api.loading import is_stored, load_with_card
from lasat_ray.api.words import in_python
from lasat_ray.attacks.strong import LOSSES, PGDSpec, run_pgd
from lasat_ray.config.changes import read_value
from lasat_ray.config.fields import Budget
from lasat_ray.data.arrays import channels_first, checked_floats, layout_of, read_labels
from lasat_ray.errors import UsageError, unknown_name
from lasat_ray.evaluation.attacks import attack_chunk, split_name
from lasat_ray.evaluation.outside import code_of
from lasat_ray.evaluation.part import check_logits
from lasat_ray.evaluation.spec import NORMS, AttackSpec
from lasat_ray.models import dtype_of, frozen_eval
from lasat_ray.rng import RandomKey
from lasat_ray.types import Batch

PerImage = float | str | Sequence[float] | np.ndarray | Tensor
"""One number for all images, or one for each, [N]; lengths in [0,1] pixels or as "8/255"."""
ENGINE = {"pgd": "ce", "cw": "margin", "fgsm": "ce"}
"""Attacks that the training engine runs, and the loss that each raises."""


@in_python
def attack(
    net: Any,
    x: Any,
    y: Any,
    /,
    *,
    eps: PerImage = 8 / 255,
    steps: int | Sequence[int] | np.ndarray | Tensor = 10,
    step_size: PerImage | None = None,
    norm: str = "linf",
    attack: str = "pgd",
    loss: str | None = None,
    restarts: int = 1,
    random_start: bool = True,
    stop_early: bool = False,
    seed: int = 0,
    batch_size: int = 256,
    trust: bool = False,
) -> Any:
    """x_adv: ``x`` moved within ``eps`` so that ``net`` takes it for something else.

    ``net``: a module from images [B,C,H,W] in [0,1] to logits [B,N] (evaluation mode is held during the
    attack, and all its modes come back), a run folder or what ``train`` gave back. ``x``: [N,C,H,W] or
    [N,H,W,C], uint8 or floats in [0,1]; ``y`` [N] the labels to get away from.

    ``attack``: pgd, fgsm, cw (PGD on the margin), aa and aa-plus (AutoAttack), apgd-ce, apgd-dlr, apgd-t,
    fab, fab-t, square, or ``module:function``. ``eps``, ``step_size`` (None: eps / 4) and ``steps``: one for
    all images or one for each, in ``norm`` linf or l2. ``loss`` of pgd: ce or margin. ``restarts``: random
    starts, each for what those before left; ``random_start`` False begins at ``x``. ``stop_early``: an image
    is done at the first step that fools the net. The same ``seed`` gives the same images whatever
    ``batch_size`` is (but for AutoAttack).

    Returns images of the type, layout, and device of ``x``; of uint8, floats in [0,1] (float32). UsageError
    or UserError in one line for whatever cannot work.
    """
    if is_stored(net):
        net, _ = load_with_card(net, trust=trust)
    if not isinstance(net, nn.Module):
        raise UsageError(
            f"net: {type(net).__name__} is no module, run folder or checkpoint; give one of these"
        )
    batch = _batch(net, x, y)
    asked = _asked(attack, batch, eps, steps, step_size, norm, loss, restarts, random_start, stop_early)
    if restarts < 1 or batch_size < 1:
        name, value = ("restarts", restarts) if restarts < 1 else ("batch_size", batch_size)
        raise UsageError(f"{name}: {value} is out of range; give 1 or more")
    with frozen_eval(net):
        parts = [_attacked(net, part, asked.of(part.index), seed) for part in _parts(batch, batch_size)]
    x_adv = torch.cat(parts) if parts else batch.x
    return _like(x_adv.cpu(), x)


@dataclass(frozen=True, slots=True)
class Asked:
    """An attack with each image's own numbers: ``eps``, ``step_size``, ``steps`` [N]."""

    family: str
    norm: str
    loss: str
    restarts: int
    random_start: bool
    stop_early: bool
    eps: Tensor
    step_size: Tensor
    steps: Tensor

    def of(self, rows: Tensor) -> Asked:
        """The same for some images."""
        rows = rows.to(self.eps.device)
        own = {name: getattr(self, name)[rows] for name in ("eps", "step_size", "steps")}
        return dataclasses.replace(self, **own)


def _batch(net: nn.Module, x: Any, y: Any) -> Batch:
    """All images where the net lies, in its precision."""
    images = channels_first(x, "x")
    labels = read_labels(y, len(images), "y")
    device = next((tensor.device for tensor in net.parameters()), torch.device("cpu"))
    dtype = dtype_of(net)
    if images.dtype == torch.uint8:
        pixels = images.to(device, dtype) / 255
    else:
        pixels = checked_floats(images, "x").to(device, dtype)
    index = torch.arange(len(pixels), device=device)
    return Batch(x=pixels.contiguous(), y=labels.to(device), index=index, global_size=len(pixels))


def _asked(
    name: str,
    batch: Batch,
    eps: Any,
    steps: Any,
    step_size: Any,
    norm: str,
    loss: str | None,
    restarts: int,
    random_start: bool,
    stop_early: bool,
) -> Asked:
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    if name in ENGINE:
        family, named_steps = name, 0
    else:
        try:
            family, named_steps = split_name(name)
        except UsageError as error:
            raise UsageError(str(error).replace("--attacks", "attack")) from None
    loss = loss or ENGINE.get(family, "ce")
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    most = 1.0 if norm == "linf" else math.sqrt(batch.x[0].numel() if len(batch.x) else 1)
    eps_N = _numbers("eps", eps, batch, 0.0, most)
    if step_size is None:
        size_N = eps_N if family == "fgsm" else eps_N / 4
    else:
        size_N = _numbers("step_size", step_size, batch, 0.0, most)
    steps_N = _numbers("steps", named_steps or steps, batch, 1, 100_000)
    if len(broken := steps_N[steps_N != steps_N.round()]):
        raise UsageError(f"steps: {float(broken[0]):g} is no number of steps; give whole numbers")
    if family == "fgsm":
        steps_N, random_start = torch.ones_like(steps_N), False
    return Asked(family, norm, loss, restarts, random_start, stop_early, eps_N, size_N, steps_N.long())


def _numbers(name: str, value: Any, batch: Batch, low: float, high: float) -> Tensor:
    """[N] in the images' precision; UsageError naming the first image whose number cannot be."""
    count = len(batch.x)
    try:
        value = read_value(Budget, value) if isinstance(value, str) else value
        numbers = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        told = str(error) if isinstance(value, str) else f"{value!r} is no number; give one, or one an image"
        raise UsageError(f"{name}: {told}") from None
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != count):
        raise UsageError(
            f"{name}: has shape {list(numbers.shape)} for {count} images; give one, or one an image"
        )
    numbers = numbers.expand(count)
    bad = ~((numbers >= low) & (numbers <= high))
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        told = f"{float(numbers[row]):g}" + (
            f" of image {row}" if bool((numbers != numbers[0]).any()) else ""
        )
        remedy = "pixels are in [0,1], for example 8/255" if name != "steps" else "whole numbers"
        raise UsageError(f"{name}: {told} is out of range; give {low:g} to {high:g}: {remedy}")
    return numbers.to(batch.x)


def _parts(batch: Batch, size: int) -> Iterator[Batch]:
    for first in range(0, len(batch.x), size):
        yield _rows(batch, slice(first, first + size))


def _rows(batch: Batch, rows: Any) -> Batch:
    index = batch.index[rows]
    return Batch(x=batch.x[rows], y=batch.y[rows], index=index, global_size=len(index))


def _attacked(net: nn.Module, batch: Batch, asked: Asked, seed: int) -> Tensor:
    """x_adv [B,C,H,W] of one batch."""
    with torch.no_grad():
        check_logits(net(batch.x), batch.y, batch.index)
    if asked.family in ENGINE:
        return run_pgd(net, batch, _spec(asked), _key(asked, seed)).x_adv
    x_adv = batch.x.clone()
    settings = torch.stack([asked.eps, asked.step_size, asked.steps.to(asked.eps)], 1)
    for values in settings.unique(dim=0):  # attacks of others know one budget a call
        rows = (settings == values).all(1).nonzero()[:, 0]
        eps = float(values[0])
        if eps > 0:
            spec = AttackSpec(
                name=asked.family,
                family=asked.family,
                norm=asked.norm,
                eps=eps,
                step_size=float(values[1]),
                num_steps=int(values[2]),
                restarts=asked.restarts,
                code=code_of(asked.family) if ":" in asked.family else "",
            )
            found = attack_chunk(net, _rows(batch, rows), spec, seed, int(batch.index[0]))
            x_adv[rows] = found.x_adv.to(x_adv)
    return x_adv


def _spec(asked: Asked) -> PGDSpec:
    same = bool((asked.steps == asked.steps[0]).all())
    return PGDSpec(
        norm=asked.norm,
        eps=asked.eps,
        step_size=asked.step_size,
        num_steps=int(asked.steps[0]) if same else asked.steps,
        loss=asked.loss,
        restarts=asked.restarts,
        stop_early=asked.stop_early,
        random_start=asked.random_start,
    )


def _key(asked: Asked, seed: int) -> RandomKey:
    """The random starts of ``evaluate`` where all images take equally many steps."""
    same = bool((asked.steps == asked.steps[0]).all())
    steps = int(asked.steps[0]) if same else "each its own"
    name = (steps,) if asked.loss == "ce" else (asked.loss, steps)
    return RandomKey.of(seed, "evaluation start", *name)


def _like(x_adv: Tensor, x: Any) -> Any:
    """x_adv [N,C,H,W] in the type, layout and place of ``x``."""
    is_array = not isinstance(x, Tensor)
    layout = layout_of(np.shape(x) if is_array else x.shape, is_array, "x")
    if layout == "NHW":
        x_adv = x_adv[:, 0]
    elif layout == "NHWC":
        x_adv = x_adv.permute(0, 2, 3, 1)
    if is_array:
        kind = np.asarray(x).dtype
        return x_adv.numpy().astype(kind if kind.kind == "f" else np.float32)
    return x_adv.to(device=x.device, dtype=x.dtype if x.is_floating_point() else torch.float32)
