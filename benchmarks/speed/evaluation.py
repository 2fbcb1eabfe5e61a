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

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from torch import Tensor, nn

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
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def interleaved(variants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, Any]]:
    """Each variant in turn, ``repeats`` times after one unrecorded turn where there are many."""
    found: dict[str, dict[str, Any]] = {name: {"seconds": [], "accuracy": []} for name in variants}
    for turn in range(repeats + (repeats > 2)):
        for name, work in variants.items():
            seconds, accuracy = timed(work)
            if turn or repeats <= 2:
                found[name]["seconds"].append(seconds)
                found[name]["accuracy"].append(accuracy)
    for entry in found.values():
        entry["median"] = statistics.median(entry["seconds"])
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

    found = interleaved(
        {"plain": plain, "ours": partial(ours, plan), "ours, all steps": partial(ours, every)}, repeats
    )
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
        variants = {
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", help="run folder of a trained net")
    parser.add_argument("--dataset", help="test set, where the run's own is not here")
    parser.add_argument("--n-pgd", type=int, default=300)
    parser.add_argument("--n-aa", type=int, default=100, help="0 leaves AutoAttack out")
    parser.add_argument("--chunk-size", type=int, default=EvaluationPlan().chunk_size)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--repeats-aa", type=int, default=1)
    parser.add_argument("--record", help="name of the file in benchmarks/records")
    words = parser.parse_args()
    subject = from_run(
        Path(words.run), which="best", dataset=words.dataset, root=None, max_test=None, trust=False
    )
    record: dict[str, Any] = {**provenance(), "subject": subject.facts}
    torch.set_num_threads(1)  # two threads lose more to a busy machine than they gain
    record["pgd_50"] = bench_pgd(subject, min(words.n_pgd, len(subject.images)), words.repeats)
    if words.n_aa:
        n = min(words.n_aa, len(subject.images))
        record["autoattack"] = bench_autoattack(subject, n, words.chunk_size, words.repeats_aa)
    print(json.dumps({name: record[name] for name in ("pgd_50", "autoattack") if name in record}, indent=2))
    if words.record:
        file = Path(__file__).parents[1] / "records" / f"{words.record.removesuffix('.json')}.json"
        file.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
