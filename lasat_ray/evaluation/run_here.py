"""Run an evaluation in this process."""

from __future__ import annotations

import torch
from torch import nn

from lasat_ray.data import Images
from lasat_ray.evaluation.part import PartStore, run_job
from lasat_ray.evaluation.progress import JobListener, JobQueue
from lasat_ray.evaluation.spec import Suite
from lasat_ray.process_group import indexed


def run_here(
    suite: Suite,
    net: nn.Module,
    images: Images,
    *,
    store: PartStore | None = None,
    listener: JobListener | None = None,
    device: str | torch.device = "cpu",
) -> JobQueue:
    """Every job of the suite that the store does not hold yet, one after the other."""
    device = indexed(device)
    queue = JobQueue(suite, store, listener)
    net = net.to(device)
    while (taken := queue.take()) is not None:
        job, alive = taken
        queue.done(job, run_job(net, images, job, suite, alive, device))
    return queue
