"""How fast an evaluation is, as ratios taken in one run on one machine.

``python -m benchmarks.speed.evaluation RUN --record NAME`` measures, interleaved, on the net and test
images of a run folder:

- PGD-50: ours against a plain loop that back-propagates into the weights over the full batch;
- AutoAttack: sharded over 2 single-thread Ray workers against the package in one process with one
  thread, both as one call on all images and in the same chunks as ours. The speed-up is against the
  faster of the two; the accuracy must be that of the same chunks (in one call the package draws
  other random numbers, which can move an image).

The record holds every repeat, the command, versions and commit.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyautoattack
import torch
import tyro
from torch import Tensor, nn

from benchmarks.common import in_turn, write_record
from lasat_ray.cluster.evaluate_on_ray import evaluate_on_ray
from lasat_ray.cluster.session import ray_session
from lasat_ray.evaluation import EvaluationPlan, evaluate_net
from lasat_ray.evaluation.subject import EvaluationTarget, from_run
from lasat_ray.runs.folder import provenance


def plain_pgd(net: nn.Module, x: Tensor, y: Tensor, *, eps: float, step: float, num_steps: int) -> Tensor:
    """PGD as it is commonly written: loss.backward() on the whole batch, weights included."""
    delta = torch.empty_like(x).uniform_(-eps, eps)
    for _ in range(num_steps):
        delta = torch.clamp(x + delta, 0, 1).sub_(x).detach().requires_grad_(True)
        loss = nn.functional.cross_entropy(net(x + delta), y)
        loss.backward()
        assert delta.grad is not None
        delta = torch.clamp(delta.detach() + step * delta.grad.sign(), -eps, eps)
    return torch.clamp(x + delta, 0, 1)


def plain_accuracy(net: nn.Module, x: Tensor, y: Tensor, *, batch: int, **attack: Any) -> float:
    """Robust accuracy of the plain loop; gradients of weights pile up, as nobody needs them."""
    right = 0
    for first in range(0, len(y), batch):
        rows = slice(first, first + batch)
        x_adv = plain_pgd(net, x[rows], y[rows], **attack)
        with torch.no_grad():
            right += int((net(x_adv).argmax(1) == y[rows]).sum())
    return right / len(y)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the work, and its result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def interleaved(variants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, Any]]:
    """Each variant in turn, ``repeats`` times after one unrecorded turn where there are many."""
    turns = in_turn({n: partial(timed, work) for n, work in variants.items()}, repeats, int(repeats > 2))
    found: dict[str, dict[str, Any]] = {}
    for name, pairs in turns.items():
        seconds, accuracies = (list(values) for values in zip(*pairs, strict=True))
        found[name] = {"seconds": seconds, "accuracy": accuracies, "median": statistics.median(seconds)}
    return found


def bench_pgd(subject: EvaluationTarget, n: int, repeats: int) -> dict[str, Any]:
    """PGD-50 with the run's own budget, both in batches of 100."""
    assert subject.config is not None
    eps, step = subject.config.evaluation.eps, subject.config.evaluation.step_size
    images = subject.images.take(torch.arange(n))
    x, y = images.x.float() / 255, images.y
    plan = EvaluationPlan(attacks=("pgd-50",), eps=eps, step_size=step, sanity_examples=0)
    every = EvaluationPlan(attacks=("pgd-50",), eps=eps, step_size=step, sanity_examples=0, all_steps=True)

    def plain() -> float:
        subject.net.requires_grad_(True)
        accuracy = plain_accuracy(subject.net, x, y, batch=100, eps=eps, step=step, num_steps=50)
        subject.net.zero_grad(set_to_none=True)
        subject.net.requires_grad_(False)
        return accuracy

    def ours(plan: EvaluationPlan) -> float:
        return evaluate_net(subject.net, images, plan)["attacks"]["pgd-50"]["accuracy"]

    variants: dict[str, Callable[[], float]] = {"plain": plain}
    variants |= {"ours": partial(ours, plan), "ours, all steps": partial(ours, every)}
    found = interleaved(variants, repeats)
    for name in ("ours", "ours, all steps"):
        found[name]["speedup"] = found["plain"]["median"] / found[name]["median"]
    return {"n": n, "eps": eps, "step_size": step, "threads": torch.get_num_threads(), "variants": found}


def bench_autoattack(subject: EvaluationTarget, n: int, chunk_size: int, repeats: int) -> dict[str, Any]:
    """The whole command on 2 workers, their start included, against the package alone."""
    assert subject.config is not None
    eps, images = subject.config.evaluation.eps, subject.images.take(torch.arange(n))
    x, y = images.x.float() / 255, images.y
    plan = EvaluationPlan(attacks=("aa",), eps=eps, chunk_size=chunk_size, sanity_examples=0)

    def package(size: int) -> float:
        right = 0
        for chunk, first in enumerate(range(0, n, size)):
            rows = slice(first, first + size)
            attack = pyautoattack.AutoAttack(
                subject.net, norm="Linf", eps=eps, seed=chunk, version="standard"
            )
            _, y_adv = attack.run_standard_evaluation(x[rows], y[rows], batch_size=size)
            right += int((y_adv == y[rows]).sum())
        return right / n

    def sharded() -> float:
        run = partial(evaluate_on_ray, num_workers=2)
        return evaluate_net(subject.net, images, plan, run=run)["attacks"]["aa"]["accuracy"]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # Ray's 15 would let any other program pass the workers; the spelling is Ray's.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    with ray_session(None, 120.0):
        variants: dict[str, Callable[[], float]] = {
            "package, one call": partial(package, n),
            "package, by chunks": partial(package, chunk_size),
            "2 workers": sharded,
        }
        found = interleaved(variants, repeats)
    torch.set_num_threads(threads)
    fastest = min(found[name]["median"] for name in variants if name != "2 workers")
    found["2 workers"]["speedup"] = fastest / found["2 workers"]["median"]
    same = {a for name, entry in found.items() if name != "package, one call" for a in entry["accuracy"]}
    return {"n": n, "eps": eps, "chunk_size": chunk_size, "identical": len(same) == 1, "variants": found}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    run: tyro.conf.Positional[Path]
    """Run folder of a trained net."""
    dataset: str | None = None
    """Test set, where the run's own is not here."""
    n_pgd: int = 300
    """Test images under PGD-50."""
    n_aa: int = 100
    """Test images under AutoAttack; 0 leaves it out."""
    chunk_size: int = EvaluationPlan().chunk_size
    """Images of a chunk."""
    repeats: int = 5
    """Turns of PGD-50."""
    repeats_aa: int = 1
    """Turns of AutoAttack."""
    record: str | None = None
    """Name of the file in benchmarks/records."""


def main() -> None:
    asked = tyro.cli(Options, description=__doc__)
    subject = from_run(asked.run, which="best", dataset=asked.dataset, root=None, max_test=None, trust=False)
    torch.set_num_threads(1)  # two threads lose more to a busy machine than they gain
    found = {"pgd_50": bench_pgd(subject, min(asked.n_pgd, len(subject.images)), asked.repeats)}
    if asked.n_aa:
        n = min(asked.n_aa, len(subject.images))
        found["autoattack"] = bench_autoattack(subject, n, asked.chunk_size, asked.repeats_aa)
    print(json.dumps(found, indent=2))
    write_record(asked.record, {**provenance(), "subject": subject.facts, **found})


if __name__ == "__main__":
    main()
