"""Attacks from outside the project, named ``module:function``: what they return is checked, then counted."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lasat_ray.errors import UsageError, UserError
from lasat_ray.evaluation.spec import AttackSpec
from lasat_ray.models import frozen_eval
from lasat_ray.plugins import Plugin, load_plugin
from lasat_ray.types import Batch

OutsideAttack = Callable[[nn.Module, Batch, AttackSpec, int, int], Tensor]
"""(frozen net, images to attack, what was asked, seed, chunk number) -> x_adv [B,C,H,W]."""
ROUNDING = 1e-5
"""How far beyond eps a perturbation may reach, in [0,1] pixels: float32 does not spell 8/255 exactly."""


def find_outside(name: str) -> OutsideAttack:
    """The function behind ``module:function``; UsageError in one line where there is none."""
    attack = load_plugin("attacks", name)
    if not callable(attack):
        raise UsageError(f"--attacks: '{name}' is no function; see lasat_ray/evaluation/outside.py")
    return attack


def code_of(name: str) -> str:
    """A hash of the file that an outside attack stands in: changed code never meets old results."""
    find_outside(name)
    file = sys.modules[name.partition(":")[0]].__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else ""


def run_outside(
    net: nn.Module, batch: Batch, spec: AttackSpec, seed: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """(x_adv [B,C,H,W], fooled [B] bool): whether an image was fooled is not left to the attack.

    UserError naming the image where x_adv has another shape, is not finite, leaves the pixel range or
    the ball of ``spec.eps`` in ``spec.norm``.
    """
    attack, plugin = find_outside(spec.family), Plugin("--attacks", spec.name)
    with plugin.call("attacking"):  # its own copy: what it changes in place is not what it is held to
        own = dataclasses.replace(batch, x=batch.x.clone(), y=batch.y.clone())
        x_adv = attack(net, own, spec, seed, chunk)
    if not isinstance(x_adv, Tensor) or x_adv.shape != batch.x.shape:
        found = list(x_adv.shape) if isinstance(x_adv, Tensor) else type(x_adv).__name__
        raise UserError(f"{spec.name}: returns {found}; give x_adv as a tensor of {list(batch.x.shape)}")
    if not x_adv.is_floating_point():
        raise UserError(f"{spec.name}: returns {x_adv.dtype}; give x_adv in [0,1] as floating-point numbers")
    x_adv = x_adv.detach().to(batch.x)
    delta = (x_adv - batch.x).flatten(1)
    size_B = delta.abs().amax(1) if spec.norm == "linf" else delta.norm(dim=1)
    outside_B = (x_adv.flatten(1).amax(1) > 1) | (x_adv.flatten(1).amin(1) < 0)
    bad_B = outside_B | ~(size_B <= spec.eps + ROUNDING)  # nan compares false
    if bad_B.any():
        row = int(bad_B.nonzero()[0, 0])
        told = "leaves [0,1]" if outside_B[row] else f"lies {float(size_B[row]):.4g} from its image"
        raise UserError(
            f"{spec.name}: what it makes of test image {int(batch.index[row])} {told}, with eps "
            f"{spec.eps:.4g} in {spec.norm}; keep it inside, for example with lasat_ray.attacks.ball.BALLS"
        )
    with torch.no_grad(), frozen_eval(net):  # whatever mode the attack left it in
        return x_adv, net(x_adv).argmax(1) != batch.y
