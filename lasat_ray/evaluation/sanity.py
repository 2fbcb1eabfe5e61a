"""Is the measured robustness real? Attacks and probes whose outcome is known for any honest net.

Gradient masking shows where stronger attacks are weaker, where an attack without gradients beats
one with them, or where even an unbounded attack fails (Athalye, Carlini and Wagner 2018; Carlini
et al. 2019, "On Evaluating Adversarial Robustness").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from lasat_ray.evaluation.part import Part
from lasat_ray.evaluation.spec import AttackSpec, Job
from lasat_ray.units import NORM_NAMES

HUGE_EPS = 0.5
"""Any image can be made uniformly gray within this L-inf budget, and within its length in L2."""
HUGE = "sanity-huge-eps"
QUERIES = 200
SLACK = 0.02
"""Share of images by which two attacks may miss their order through chance; at least one image."""


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


def judge(parts: Mapping[Job, Part], full: Mapping[str, float], n_full: int) -> list[Check]:
    """The checks from the parts of ``sanity_specs``; ``full``: attack -> accuracy on ``n_full`` images."""
    found = _joined(parts)
    acc = {name: float(part["robust"].float().mean()) for name, part in found.items()}
    loss = {name: float(part["loss"].double().mean()) for name, part in found.items()}
    n = len(found["sanity-probe"]["robust"])
    slack = max(SLACK, 1 / n) + 1e-9
    return [
        *_probe_checks(found["sanity-probe"]),
        _steps(acc, slack),
        _black_box(acc, slack),
        _rising_loss(loss),
        _huge(found[HUGE]["robust"], next(j.spec for j in parts if j.spec.name == HUGE)),
        *_suite_checks(full, max(SLACK / 2, 1 / n_full) + 1e-9),
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
            "logits", not sums, "outputs sum to 1" if sums else "outputs are no probabilities", "no logits"
        ),
    ]


def _steps(acc: dict[str, float], slack: float) -> Check:
    weak, mid, strong = (acc[f"sanity-{name}"] for name in ("fgsm", "pgd-10", "pgd-50"))
    passed = mid <= weak + slack and strong <= mid + slack
    found = f"accuracy FGSM {weak:.3f}, PGD-10 {mid:.3f}, PGD-50 {strong:.3f}"
    return Check("more steps are stronger", passed, found, "more steps attack less")


def _black_box(acc: dict[str, float], slack: float) -> Check:
    square, pgd = acc["sanity-square"], acc["sanity-pgd-50"]
    found = f"accuracy Square ({QUERIES} queries) {square:.3f}, PGD-50 {pgd:.3f}"
    return Check("white box beats black box", pgd <= square + slack, found, "black box beats white box")


def _rising_loss(loss: dict[str, float]) -> Check:
    values = [loss[f"sanity-{name}"] for name in ("probe", "half-eps", "pgd-10", "double-eps")]
    passed = all(later > earlier for earlier, later in pairwise(values))
    found = "loss at 0, 1/2, 1, 2 eps: " + ", ".join(f"{value:.3g}" for value in values)
    return Check("loss rises with eps", passed, found, "a larger budget does not raise the loss")


def _huge(robust: Tensor, spec: AttackSpec) -> Check:
    left = int(robust.sum())
    found = f"{left} of {len(robust)} images survive eps = {spec.eps:.4g} ({NORM_NAMES[spec.norm]})"
    return Check("a huge eps breaks all", left == 0, found, "images survive an unbounded attack")


def _suite_checks(full: Mapping[str, float], slack: float) -> list[Check]:
    """The same order among the attacks that were asked for, on all their images."""
    white = [full[name] for name in full if name.startswith(("pgd", "cw", "apgd"))]
    checks = []
    if "square" in full and white:
        found = f"accuracy Square {full['square']:.4f}, best white box {min(white):.4f}"
        passed = min(white) <= full["square"] + slack
        checks.append(Check("suite: white box beats black box", passed, found, "black box beats white box"))
    # Fewer than ten short steps may well do less than FGSM's long one.
    steps = {name: int(name.removeprefix("pgd-")) for name in full if name.startswith("pgd-")}
    names = sorted((name for name in steps if steps[name] >= 10), key=steps.__getitem__)
    order = [full[name] for name in (["fgsm"] if "fgsm" in full else []) + names]
    if len(order) > 1:
        found = "accuracy from weak to strong: " + ", ".join(f"{acc:.4f}" for acc in order)
        passed = all(later <= earlier + slack for earlier, later in pairwise(order))
        checks.append(Check("suite: more steps are stronger", passed, found, "more steps attack less"))
    return checks
