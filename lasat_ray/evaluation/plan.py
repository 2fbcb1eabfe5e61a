"""From what a user asks to a checked suite of attacks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from lasat_ray.config.units import format_budget
from lasat_ray.data.subsets import even_order
from lasat_ray.errors import UsageError, check_least, unknown_name
from lasat_ray.evaluation.attacks import COMPONENTS, FEW, VERSIONS, split_name
from lasat_ray.evaluation.autoattack import check_classes, too_few_for
from lasat_ray.evaluation.outside import code_of
from lasat_ray.evaluation.sanity import sanity_specs
from lasat_ray.evaluation.spec import NORMS, AttackSpec, Suite

DEFAULT_ATTACKS = ("clean", "fgsm", "pgd-10", "pgd-20", "pgd-50", "cw", "aa")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPlan:
    """An evaluation as a user asks for it; ``eps`` and ``step_size`` in [0,1] pixels, ``norm`` linf or l2.

    Nothing is checked here: ``evaluate_net`` raises UsageError for what cannot be.
    ``step_size`` None means eps / 4 (2/255 at 8/255). ``n_examples`` None: all images, else so
    many, even over the classes. pgd and cw: ``restarts`` random starts; an image is done at the first
    step that fools the net, as in the code behind the published LAS-AT figures; ``all_steps`` takes every
    step and counts the last, as torchattacks and training's own figure do (never fewer robust images).
    ``sanity_examples``: images of the sanity check; 0 leaves it out and the report says so.
    """

    attacks: tuple[str, ...] = DEFAULT_ATTACKS
    eps: float = 8 / 255
    norm: str = "linf"
    step_size: float | None = None
    restarts: int = 1
    n_examples: int | None = None
    chunk_size: int = 200
    seed: int = 0
    all_steps: bool = False
    worst_case: bool = False
    save_images: bool = False
    sanity_examples: int = 64


def make_suite(
    plan: EvaluationPlan,
    n: int,
    image_shape: tuple[int, ...],
    labels: Tensor | None = None,
    num_classes: int | None = None,
) -> Suite:
    """The jobs behind a plan for ``n`` test images; UsageError naming the first setting that cannot be.

    ``labels`` [n] of the images: the sanity check's are even over them, else the first. AutoAttack on a net
    of 2 or 3 ``num_classes`` goes as far as it can: without the components that need more, and named so.
    """
    if n < 1:
        raise UsageError("test set: holds no images; nothing can be evaluated, check the data set")
    _check(plan, math.prod(image_shape))
    n = min(n, plan.n_examples or n)
    step_size = plan.eps / 4 if plan.step_size is None else plan.step_size
    attacks = [_spec(name, plan, step_size) for name in plan.attacks]
    if num_classes is not None:
        attacks = [_for_classes(spec, num_classes) for spec in attacks]
    if plan.sanity_examples:
        attacks += sanity_specs(
            norm=plan.norm,
            eps=plan.eps,
            step_size=step_size,
            limit=min(n, plan.sanity_examples),
            image_size=math.prod(image_shape),
        )
    return Suite(
        attacks=tuple(attacks),
        n=n,
        chunk_size=plan.chunk_size,
        seed=plan.seed,
        worst_case=plan.worst_case,
        save_images=plan.save_images,
        sample=() if labels is None else tuple(even_order(labels)[: plan.sanity_examples].tolist()),
    )


def _spec(name: str, plan: EvaluationPlan, step_size: float) -> AttackSpec:
    """Settings that an attack does not read are left at their defaults, so that they change no key."""
    family, steps = split_name(name)
    if family == "clean":
        return AttackSpec(name=name, family=family, norm=plan.norm, eps=0.0)
    if family not in ("pgd", "cw"):
        code = code_of(name) if ":" in name else ""
        return AttackSpec(name=name, family=family, norm=plan.norm, eps=plan.eps, code=code)
    return AttackSpec(
        name=name,
        family=family,
        norm=plan.norm,
        eps=plan.eps,
        step_size=step_size,
        num_steps=steps,
        restarts=plan.restarts,
        stop_early=not plan.all_steps,
    )


def asks_for_classes(name: str) -> bool:
    """Whether an attack by that name is one of AutoAttack's, whose losses need several classes."""
    return name in VERSIONS or name in COMPONENTS


def _for_classes(spec: AttackSpec, num_classes: int) -> AttackSpec:
    """The same attack, or as much of AutoAttack as so few classes allow."""
    if spec.family in COMPONENTS:
        check_classes([spec.family], num_classes)
    left_out = too_few_for(VERSIONS[spec.family], num_classes) if spec.family in VERSIONS else []
    if not left_out:
        return spec
    return replace(spec, name=f"{spec.name}-without-{'-'.join(left_out)}", family=spec.family + FEW)


def _check(plan: EvaluationPlan, image_size: int) -> None:
    if plan.norm not in NORMS:
        raise unknown_name("--norm", plan.norm, NORMS)
    most = 1.0 if plan.norm == "linf" else math.sqrt(image_size)
    for option, value in (("--eps", plan.eps), ("--step-size", plan.step_size)):
        if value is not None and not 0 < value <= most:
            shown = format_budget(value) if math.isfinite(value) else value
            raise UsageError(
                f"{option}: {shown} is out of range; pixels are in [0,1]: "
                f"give more than 0 and at most {most:g}, for example 8/255"
            )
    check_least(
        {
            "n-examples": (1, plan.n_examples),
            "chunk-size": (1, plan.chunk_size),
            "restarts": (1, plan.restarts),
            "sanity-examples": (0, plan.sanity_examples),
        }
    )
    if not plan.attacks:
        raise UsageError("--attacks: names none; give for example clean pgd-20 aa")
    for name in plan.attacks:
        split_name(name)
        if plan.attacks.count(name) > 1:
            raise UsageError(f"--attacks: '{name}' stands twice; give each attack once")
