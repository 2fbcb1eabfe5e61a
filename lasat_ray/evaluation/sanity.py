"""Is the measured robustness real? Attacks and probes whose outcome is known for any honest net.

Gradient masking shows where stronger attacks are weaker, where an attack without gradients beats
one with them, or where even an unbounded attack fails (Athalye, Carlini and Wagner 2018; Carlini
et al. 2019, "On Evaluating Adversarial Robustness").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from lasat_ray.config.units import NORM_NAMES
from lasat_ray.evaluation.part import Part
from lasat_ray.evaluation.spec import AttackSpec, Job

HUGE_EPS = 0.5
"""Any image can be made uniformly gray within this L-inf budget, and within its length in L2."""
HUGE = "sanity-huge-eps"
QUERIES = 200
CHANCE = 0.05
"""Two attacks are out of order where chance alone would part them like that less often than this."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question: ``found`` in words with numbers, ``reason`` why that makes figures unreliable."""

    name: str
    passed: bool
    found: str
    reason: str

    def to_json(self) -> dict[str, object]:
        return {"passed": self.passed, "found": self.found}


def sanity_specs(*, norm: str, eps: float, step_size: float, limit: int, image_size: int) -> list[AttackSpec]:
    """The attacks of the check on the first ``limit`` images; ``image_size`` = C*H*W."""
    base = AttackSpec(
        name="", family="pgd", norm=norm, eps=eps, step_size=step_size, limit=limit, sanity=True
    )
    huge = HUGE_EPS * (math.sqrt(image_size) if norm == "l2" else 1.0)

    def pgd(name: str, steps: int, factor: float = 1.0) -> AttackSpec:
        return replace(base, name=name, num_steps=steps, eps=eps * factor, step_size=step_size * factor)

    return [
        replace(base, name="sanity-probe", family="probe"),
        replace(base, name="sanity-fgsm", family="fgsm"),
        pgd("sanity-half-eps", 10, 0.5),
        pgd("sanity-pgd-10", 10),
        pgd("sanity-double-eps", 10, 2.0),
        pgd("sanity-pgd-50", 50),
        replace(base, name="sanity-square", family="square", queries=QUERIES),
        replace(base, name=HUGE, num_steps=50, eps=huge, step_size=huge / 10),
    ]


@dataclass(frozen=True, slots=True)
class Order:
    """Two attacks image by image: how many images only the weaker one broke, and only the stronger one.

    A stronger attack of an honest net may miss a few images that a weaker one breaks. Were both
    equally strong, each image that only one of them breaks would be a fair coin; ``chance`` is the
    probability of so many or more on the weaker one's side (the sign test).
    """

    only_weak: int
    only_strong: int

    @property
    def chance(self) -> float:
        n = self.only_weak + self.only_strong
        return sum(math.comb(n, k) for k in range(self.only_weak, n + 1)) / 2**n

    @property
    def holds(self) -> bool:
        return self.chance >= CHANCE


def order_of(weak: Tensor, strong: Tensor) -> Order:
    """Compare flags of robust images, [n] bool each, of the same images."""
    return Order(int((~weak & strong).sum()), int((weak & ~strong).sum()))


def judge(parts: Mapping[Job, Part], full: Mapping[str, Tensor]) -> list[Check]:
    """The checks from the parts of ``sanity_specs``; ``full``: attack -> [n] bool, who withstood it, for
    the attacks that were asked for."""
    found = _joined(parts)
    flags = {name: part["robust"] for name, part in found.items()}
    loss = {name: float(part["loss"].double().mean()) for name, part in found.items()}
    return [
        *_probe_checks(found["sanity-probe"]),
        _steps(flags),
        _black_box(flags),
        _rising_loss(loss),
        _huge(found[HUGE]["robust"], next(j.spec for j in parts if j.spec.name == HUGE)),
        *_suite_checks(full),
    ]


def _joined(parts: Mapping[Job, Part]) -> dict[str, dict[str, Tensor]]:
    """Attack -> its flags, losses and measures over all chunks, in order."""
    jobs = sorted((job for job in parts if job.spec.sanity), key=lambda job: job.first)
    joined: dict[str, dict[str, list[Tensor]]] = {}
    for job in jobs:
        part, into = parts[job], joined.setdefault(job.spec.name, {})
        for name, value in {"robust": part.robust, "loss": part.loss, **part.measures}.items():
            into.setdefault(name, []).append(value)
    return {spec: {name: torch.cat(values) for name, values in into.items()} for spec, into in joined.items()}


def _probe_checks(probe: dict[str, Tensor]) -> list[Check]:
    n, size = len(probe["range"]), float(probe["size"].max()) + 1e-30
    varies, bends = float(probe["range"].max()) / size, float(probe["bend"].max())
    repeat, masked = float(probe["repeat"].max()) / size, int((probe["gradient"] == 0).sum())
    alone = float(probe["alone"].max()) / size
    share = bends / (float(probe["range"].max()) + 1e-30)
    sums = (probe["total"] - 1).abs().max() < 1e-4 and probe["lowest"].min() > -1e-4
    return [
        Check("varies", varies > 1e-6, f"logits vary by {varies:.2g} of their size", "the net is constant"),
        Check("curved", share > 1e-4, f"deviation from an affine net {share:.2g}", "the net is linear"),
        Check(
            "gradients",
            masked <= 0.05 * n,
            f"{masked} of {n} images have a gradient of exactly zero",
            "gradients are masked",
        ),
        Check(
            "repeats", repeat < 1e-4, f"two passes differ by {repeat:.2g}", "the net is random; use aa-rand"
        ),
        Check(
            "an image alone",
            alone < 1e-3 or repeat >= 1e-4,
            f"logits alone and in a batch differ by {alone:.2g}",
            "an image's logits depend on the others of its batch",
        ),
        Check(
            "logits", not sums, "outputs sum to 1" if sums else "outputs are no probabilities", "no logits"
        ),
    ]


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())


def _steps(flags: dict[str, Tensor]) -> Check:
    """Each attack against the next stronger one, image by image."""
    ladder = [flags[f"sanity-{name}"] for name in ("fgsm", "pgd-10", "pgd-50")]
    orders = [order_of(weak, strong) for weak, strong in pairwise(ladder)]
    told = [f"{name} {_share(f):.3f}" for name, f in zip(("FGSM", "PGD-10", "PGD-50"), ladder, strict=True)]
    found = f"accuracy {', '.join(told)}; {_images_missed(orders)}"
    return Check(
        "more steps are stronger", all(order.holds for order in orders), found, "more steps attack less"
    )


def _images_missed(orders: Sequence[Order]) -> str:
    """``2, 0 images broken by the weaker attack alone and 5, 1 by the stronger``."""
    weak, strong = ([str(getattr(order, side)) for order in orders] for side in ("only_weak", "only_strong"))
    return f"{', '.join(weak)} images broken by the weaker attack alone, {', '.join(strong)} by the stronger"


def _black_box(flags: dict[str, Tensor]) -> Check:
    square, pgd = flags["sanity-square"], flags["sanity-pgd-50"]
    order = order_of(square, pgd)
    found = f"accuracy Square ({QUERIES} queries) {_share(square):.3f}, PGD-50 {_share(pgd):.3f}"
    return Check(
        "white box beats black box",
        order.holds,
        f"{found}; {_images_missed([order])}",
        "black box beats white box",
    )


def _rising_loss(loss: dict[str, float]) -> Check:
    values = [loss[f"sanity-{name}"] for name in ("probe", "half-eps", "pgd-10", "double-eps")]
    passed = all(later > earlier for earlier, later in pairwise(values))
    found = "loss at 0, 1/2, 1, 2 eps: " + ", ".join(f"{value:.3g}" for value in values)
    return Check("loss rises with eps", passed, found, "a larger budget does not raise the loss")


def _huge(robust: Tensor, spec: AttackSpec) -> Check:
    left = int(robust.sum())
    found = f"{left} of {len(robust)} images survive eps = {spec.eps:.4g} ({NORM_NAMES[spec.norm]})"
    return Check("a huge eps breaks all", left == 0, found, "images survive an unbounded attack")


def _suite_checks(full: Mapping[str, Tensor]) -> list[Check]:
    """The same order among the attacks that were asked for, on all their images."""
    white = [full[name] for name in full if name.startswith(("pgd", "cw", "apgd"))]
    checks = []
    if "square" in full and white:
        best = min(white, key=_share)
        order = order_of(full["square"], best)
        found = f"accuracy Square {_share(full['square']):.4f}, best white box {_share(best):.4f}"
        found = f"{found}; {_images_missed([order])}"
        checks.append(
            Check("suite: white box beats black box", order.holds, found, "black box beats white box")
        )
    # Fewer than ten short steps may well do less than FGSM's long one.
    steps = {name: int(name.removeprefix("pgd-")) for name in full if name.startswith("pgd-")}
    names = sorted((name for name in steps if steps[name] >= 10), key=steps.__getitem__)
    ladder = [full[name] for name in (["fgsm"] if "fgsm" in full else []) + names]
    if len(ladder) > 1:
        orders = [order_of(weak, strong) for weak, strong in pairwise(ladder)]
        shares = ", ".join(f"{_share(flags):.4f}" for flags in ladder)
        found = f"accuracy from weak to strong: {shares}; {_images_missed(orders)}"
        passed = all(order.holds for order in orders)
        checks.append(Check("suite: more steps are stronger", passed, found, "more steps attack less"))
    return checks
