"""How long a round takes on many GPUs: the arithmetic behind scaling.py, nothing measured here.

A round is computed by every worker on its own images, then gradients are summed over all, and nobody
goes on before the slowest has come. Letters: R rounds, W workers (one GPU each), S step counts.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import numpy as np

from lasat_ray.attacks.balance import plan_loans


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What is assumed of the machines."""

    tflops: float = 200.0
    """Floating-point operations a GPU achieves on these nets, 10^12 a second; a fifth of an H100's rate."""
    launch_us: float = 5.0
    """Microseconds that starting one kernel costs at least; small batches cannot be faster."""
    gpus_per_node: int = 8
    """GPUs behind one fast link."""
    node_gbytes: float = 300.0
    """10^9 bytes a second that a GPU sends to others of its node."""
    network_gbytes: float = 40.0
    """10^9 bytes a second that a GPU sends to other nodes, 400 Gbit/s less overhead."""
    latency_us: float = 15.0
    """Microseconds a message takes for each doubling of the workers."""


@dataclass(frozen=True, kw_only=True)
class Net:
    """What was counted on a net and a round that trains it."""

    flops: float  # of one image's forward pass
    kernels: int  # that a forward pass starts
    gradient_bytes: int  # summed over the workers in a round
    small_messages: float  # a round, beside that one
    strategy_flops: float = 0.0  # of one image's forward pass of the strategy net


def uniform() -> np.ndarray:
    """3 to 14 steps equally likely, as Table 1's grid."""
    p_S = np.zeros(15)
    p_S[3:] = 1 / 12
    return p_S


def policies(steps: list[int], counts: list[int]) -> dict[str, np.ndarray]:
    """Distributions of step counts by name; the last is the widest that the grid allows."""
    learned, worst = np.zeros(15), np.zeros(15)
    learned[steps] = np.array(counts) / sum(counts)
    worst[[3, 14]] = 0.5
    return {"uniform 3 to 14": uniform(), "learned on digits": learned, "half 3, half 14": worst}


def step_counts(p_S: np.ndarray, rounds: int, workers: int, images: int, seed: int = 0) -> np.ndarray:
    """Images of each worker by step count, drawn independently; int64 [R,W,S]."""
    return np.random.default_rng(seed).multinomial(images, p_S, size=(rounds, workers))


def attack_seconds(images_RWS: np.ndarray, net: Net, cluster: Cluster) -> np.ndarray:
    """Of each worker in each round [R,W]: as many passes forward and back as the longest attack has steps,
    all of one size."""
    steps_S = np.arange(images_RWS.shape[-1])
    longest_RW = (steps_S * (images_RWS > 0)).max(-1)
    work_RW = 2 * (images_RWS @ steps_S) * net.flops / (cluster.tflops * 1e12)
    return np.maximum(work_RW, longest_RW * 2 * net.kernels * cluster.launch_us * 1e-6)


def update_seconds(images: float, net: Net, cluster: Cluster, interval: int = 0) -> float:
    """Of the training step (3 passes) and, with an update interval, of the strategy net and its reward."""
    flops = 3 * net.flops
    if interval:
        flops += net.strategy_flops + (22 * net.flops + 4 * net.strategy_flops) / interval
    return max(images * flops / (cluster.tflops * 1e12), 3 * net.kernels * cluster.launch_us * 1e-6)


def sum_seconds(nbytes: float, workers: int, cluster: Cluster) -> float:
    """An all-reduce: rings in the nodes, then each GPU's part of the sum in rings between nodes."""
    if workers == 1:
        return 0.0
    inside = min(workers, cluster.gpus_per_node)
    nodes = workers / inside
    seconds = 2 * (inside - 1) / inside * nbytes / (cluster.node_gbytes * 1e9)
    seconds += 2 * (nodes - 1) / nodes * nbytes / inside / (cluster.network_gbytes * 1e9)
    return seconds + 2 * math.log2(workers) * cluster.latency_us * 1e-6


def messages_seconds(net: Net, workers: int, cluster: Cluster) -> float:
    """All that a round sends."""
    small = net.small_messages * sum_seconds(0.0, workers, cluster)
    return sum_seconds(net.gradient_bytes, workers, cluster) + small


def balanced(images_RWS: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Images by step count after the loans; loans a worker and round; median seconds of a plan, here."""
    after, moved, plans, seconds = images_RWS.copy(), 0, [], []
    for images_WS in images_RWS:
        began = time.perf_counter()
        plans.append(plan_loans(images_WS))
        seconds.append(time.perf_counter() - began)
    for images_WS, loans in zip(after, plans, strict=True):
        for lender, borrower, steps in loans:
            images_WS[lender, steps] -= 1
            images_WS[borrower, steps] += 1
        moved += len(loans)
    return after, moved / images_RWS.shape[0] / images_RWS.shape[1], statistics.median(seconds)


def simulate(
    net: Net, cluster: Cluster, p_S: np.ndarray, *, workers: int, images: int, rounds: int, image_bytes: int
) -> dict[str, float]:
    """Rounds of LAS-AT (k = 40) with ``images`` a GPU, and plain training beside it.

    Efficiencies are against as many single GPUs with batches of the same size, whose rounds send nothing and
    wait for nobody.
    """
    drawn_RWS = step_counts(p_S, rounds, workers, images)
    attack_RW, rest = attack_seconds(drawn_RWS, net, cluster), update_seconds(images, net, cluster, 40)
    sent = messages_seconds(net, workers, cluster)
    alone, plain = attack_RW.mean() + rest, update_seconds(images, net, cluster)
    after_RWS, moved, planning = balanced(drawn_RWS)
    attack_after_RW = attack_seconds(after_RWS, net, cluster)
    # There and back, in fp32; two small messages to plan and to tell who is who.
    moving = 2 * sum_seconds(moved * image_bytes, workers, cluster) + 2 * sum_seconds(0.0, workers, cluster)
    moving = moving + planning if moved else sum_seconds(0.0, workers, cluster)
    slowest, slowest_after = attack_RW.max(1).mean() + rest, attack_after_RW.max(1).mean() + rest
    return {
        "workers": workers,
        "images": images,
        "alone_ms": float(1e3 * alone),
        "sent_ms": 1e3 * sent,
        "wait": float(slowest / alone - 1),
        "wait_balanced": float(slowest_after / alone - 1),
        "lent": moved,
        "balancing_ms": 1e3 * moving,
        "plain": plain / (plain + messages_seconds(net, workers, cluster)),
        "adversarial": float(alone / (slowest + sent)),
        "balanced": float(alone / (slowest_after + moving + sent)),
    }
