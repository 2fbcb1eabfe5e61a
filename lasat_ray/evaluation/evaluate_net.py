"""Evaluate any net on any images: plan, run, report. The command and the API both end here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from lasat_ray import __version__
from lasat_ray.data import Images
from lasat_ray.data.subsets import subset
from lasat_ray.evaluation.kept import adopt, own_folder, publish
from lasat_ray.evaluation.part import PartStore, count_outputs
from lasat_ray.evaluation.plan import EvaluationPlan, asks_for_classes, make_suite
from lasat_ray.evaluation.progress import JobListener, JobQueue
from lasat_ray.evaluation.report import build_report, images_sha256, weights_sha256, write_report
from lasat_ray.evaluation.run_here import run_here
from lasat_ray.evaluation.spec import Suite, digest
from lasat_ray.runs.folder import provenance

FORMAT = 2
"""Raised whenever a change of this code changes the result of a part."""


class Runner(Protocol):
    """``run_here``, or the same over Ray."""

    def __call__(
        self,
        suite: Suite,
        net: nn.Module,
        images: Images,
        *,
        store: PartStore | None,
        listener: JobListener | None,
        device: str | torch.device,
    ) -> JobQueue: ...


def evaluate_net(
    net: nn.Module,
    images: Images,
    plan: EvaluationPlan,
    *,
    out: Path | None = None,
    run: Runner = run_here,
    announce: Callable[[Suite], JobListener | None] = lambda suite: None,
    device: str | torch.device = "cpu",
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The report on a net that maps [B,C,H,W] in [0,1] to logits [B,N], in evaluation mode.

    Accuracies in it are in [0,1], times in seconds. ``images`` x uint8 [N,C,H,W], y [N].

    With ``out`` the report is kept below it in a folder of its own (``kept.py``), and the most complete of
    all reports lies in ``out`` itself. Finished parts are kept under ``out``/.parts, so
    that the same call continues after a kill: parts are found only by the very same weights,
    images and settings. ``announce`` is told of the suite before it starts and may give a listener
    for progress. ``facts`` are copied into the report. Attacks that need more classes than the net has are
    refused before the first, and AutoAttack leaves out what does (``plan.make_suite``). UserError in one line
    where net, images or plan cannot work.
    """
    shape = tuple(images.x.shape[1:])
    make_suite(plan, len(images), shape)  # what cannot be is refused first
    num_classes = count_outputs(net, images) if any(map(asks_for_classes, plan.attacks)) else None
    rows = subset(images.y, plan.n_examples)
    images = images if len(rows) == len(images) else images.take(rows)
    suite = make_suite(plan, len(images), shape, images.y, num_classes)
    sha, source = weights_sha256(net), provenance()
    versions = {"lasat_ray": __version__, "python": source.pop("python"), **source.pop("packages")}
    store = None
    if out:
        same = {"format": FORMAT, "weights": sha, "net": repr(net), "device": torch.device(device).type}
        same |= {name: versions[name] for name in ("torch", "pyautoattack")}
        same["data"] = images_sha256(images.take(torch.arange(suite.n)))
        store = PartStore(out / ".parts" / digest([same, suite.common()])[:16])
    began = time.perf_counter()
    queue = run(suite, net, images, store=store, listener=announce(suite), device=device)
    told = {**(facts or {}), **source, "wall_seconds": time.perf_counter() - began}
    report = build_report(queue, {**told, "versions": versions, "weights_sha256": sha})
    if out:
        folder = own_folder(out, suite.n, [same, suite.common(), [spec.key() for spec in suite.attacks]])
        adopt(out)
        write_report(folder, report, queue, images, rows)
        publish(out)
    return report
