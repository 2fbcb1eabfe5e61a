"""The attacks of an evaluation by name, each a function from a batch to its adversarial images.

A new attack is a function ``(net, batch, spec, seed, chunk) -> Attacked`` and one line in ``ATTACKS``;
code outside the project is named ``module:function`` and returns x_adv alone (``outside.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from lasat_ray.attacks.strong import PGDSpec, run_pgd
from lasat_ray.errors import UsageError, unknown_name
from lasat_ray.evaluation.autoattack import auto_attack
from lasat_ray.evaluation.measures import measure
from lasat_ray.evaluation.outside import find_outside, run_outside
from lasat_ray.evaluation.spec import AttackSpec
from lasat_ray.rng import RandomKey
from lasat_ray.types import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Attacked:
    """What an attack did to a batch: ``x_adv`` [B,C,H,W], ``fooled`` [B] bool; ``fooled_ever`` [B]
    bool counts every point on the way (None: as ``fooled``); ``measures`` name -> [B]."""

    x_adv: Tensor
    fooled: Tensor
    fooled_ever: Tensor | None = None
    warnings: tuple[str, ...] = ()
    measures: dict[str, Tensor] = field(default_factory=dict)


Attack = Callable[[nn.Module, Batch, AttackSpec, int, int], Attacked]
"""(frozen net, images to attack, what was asked, seed, chunk number) -> result."""


def clean(net: nn.Module, batch: Batch, spec: AttackSpec, seed: int, chunk: int) -> Attacked:
    """No attack: x_adv is x [B,C,H,W]."""
    with torch.no_grad():
        return Attacked(x_adv=batch.x, fooled=net(batch.x).argmax(1) != batch.y)


def fgsm(net: nn.Module, batch: Batch, spec: AttackSpec, seed: int, chunk: int) -> Attacked:
    """One step of length eps from the clean image (Goodfellow et al. 2015)."""
    attack = PGDSpec(norm=spec.norm, eps=spec.eps, step_size=spec.eps, num_steps=1, random_start=False)
    return _climbed(net, batch, attack, RandomKey.of(seed))


def gradient_ascent(
    net: nn.Module, batch: Batch, spec: AttackSpec, seed: int, chunk: int, *, loss: str
) -> Attacked:
    """PGD with a random start in the ball (Madry et al. 2018); ``loss`` ce, or margin for C&W (Carlini and
    Wagner 2017). Each image's start depends on the seed and its row alone."""
    attack = PGDSpec(
        norm=spec.norm,
        eps=spec.eps,
        step_size=spec.step_size,
        num_steps=spec.num_steps,
        loss=loss,
        restarts=spec.restarts,
        stop_early=spec.stop_early,
    )
    # The name that training's own accuracy() uses, so that both give the very same number.
    name: tuple[int | str, ...] = (spec.num_steps,) if loss == "ce" else (loss, spec.num_steps)
    return _climbed(net, batch, attack, RandomKey.of(seed, "evaluation start", *name))


def package(
    net: nn.Module,
    batch: Batch,
    spec: AttackSpec,
    seed: int,
    chunk: int,
    *,
    version: str,
    only: str = "",
    as_far: bool = False,
) -> Attacked:
    """AutoAttack's own code (Croce and Hein 2020) on this chunk, seeded with seed + chunk number.

    UsageError for nets with too few classes.
    """
    x_adv, fooled, warnings = auto_attack(
        net,
        batch,
        version=version,
        only=only,
        eps=spec.eps,
        norm=spec.norm,
        seed=seed + chunk,
        queries=spec.queries,
        as_far=as_far,
    )
    return Attacked(x_adv=x_adv, fooled=fooled, warnings=warnings)


def probe(net: nn.Module, batch: Batch, spec: AttackSpec, seed: int, chunk: int) -> Attacked:
    """No attack: what the sanity check wants to know of the net around each image."""
    with torch.no_grad():
        fooled = net(batch.x).argmax(1) != batch.y
    return Attacked(x_adv=batch.x, fooled=fooled, measures=measure(net, batch))


def _climbed(net: nn.Module, batch: Batch, attack: PGDSpec, key: RandomKey) -> Attacked:
    found = run_pgd(net, batch, attack, key)
    return Attacked(x_adv=found.x_adv, fooled=found.fooled, fooled_ever=found.fooled_ever)


COMPONENTS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
VERSIONS = {"aa": "standard", "aa-plus": "plus", "aa-rand": "rand"}
FEW = "-few-classes"
"""Ends the families that leave out of AutoAttack what needs more classes than a net has."""
ATTACKS: dict[str, Attack] = {
    "clean": clean,
    "fgsm": fgsm,
    "pgd": partial(gradient_ascent, loss="ce"),
    "cw": partial(gradient_ascent, loss="margin"),
    **{name: partial(package, version=version) for name, version in VERSIONS.items()},
    **{name + FEW: partial(package, version=v, as_far=True) for name, v in VERSIONS.items()},
    **{name: partial(package, version="standard", only=name) for name in COMPONENTS},
    "probe": probe,
}
"""Family -> attack. Families in DEFAULT_STEPS are spelled FAMILY-STEPS, for example pgd-20."""

DEFAULT_STEPS: dict[str, int | None] = {"pgd": None, "cw": 30}
"""Steps where the spelling gives none: C&W as the cited papers run it (20 is the other common choice)."""

SPELLINGS = [
    *(name for name in ATTACKS if name not in (*DEFAULT_STEPS, "probe") and not name.endswith(FEW)),
    "pgd-STEPS",
    "cw-STEPS",
    "cw",
    "module:function",
]


def split_name(name: str) -> tuple[str, int]:
    """``pgd-20`` -> (pgd, 20); steps are 0 where a family has none. UsageError for other spellings."""
    family, steps = name, 0
    if ":" in name:
        find_outside(name)
        return name, 0
    if found := re.fullmatch(r"(pgd|cw)-([1-9]\d{0,4})", name):
        family, steps = found[1], int(found[2])
    elif name in DEFAULT_STEPS:
        steps = DEFAULT_STEPS[name] or 0
        if not steps:
            raise UsageError(f"--attacks: '{name}' lacks its number of steps; write for example {name}-20")
    if family not in ATTACKS or family == "probe":
        raise unknown_name("--attacks", name, SPELLINGS)
    return family, steps


def attack_chunk(net: nn.Module, batch: Batch, spec: AttackSpec, seed: int, chunk: int) -> Attacked:
    """Run one attack of the suite on some images of one chunk, x [B,C,H,W]; the net is frozen.

    UserError where an attack from outside leaves the ball or the pixel range.
    """
    if ":" in spec.family:
        x_adv, fooled = run_outside(net, batch, spec, seed, chunk)
        return Attacked(x_adv=x_adv, fooled=fooled)
    return ATTACKS[spec.family](net, batch, spec, seed, chunk)
