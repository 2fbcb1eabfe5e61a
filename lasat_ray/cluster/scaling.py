"""How many workers to ask Ray Train for: so many, or as many as there are machines for at any time."""

from __future__ import annotations

import ray
import ray.train

from lasat_ray.cli.placement import check_share
from lasat_ray.cluster.placement import Placement, check_placed
from lasat_ray.cluster.session import check_free, worker_resources

RESIZE_S = 60.0
"""Seconds between looks at whether more workers can be had; each change costs a restart from the last
checkpoint, and a look soon after a loss may see the machine that is gone."""


def scaling_of(
    num_workers: int,
    min_workers: int | None,
    *,
    cpus_per_worker: float | None,
    gpus_per_worker: float,
    device: str,
    placement: Placement,
    resize_s: float = RESIZE_S,
) -> ray.train.ScalingConfig:
    """The workers to ask for; UserError where they cannot be had.

    With ``min_workers`` so many have to be there, and Ray Train takes up to ``num_workers``: what a machine
    that is lost leaves, and what one that comes adds.
    """
    least = num_workers if min_workers is None else min_workers
    use_gpu = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= least)
    use_gpu = use_gpu or placement.accelerator_type is not None
    if use_gpu and gpus_per_worker < 1:
        check_share(gpus_per_worker, num_workers)
    # Ray Train counts whole workers a machine, beside what its controller takes there.
    most = 1.0 if min_workers is None else 0.95
    resources = worker_resources(
        least, cpus_per_worker, use_gpu, gpus_per_worker=gpus_per_worker, most_cpus=most
    )
    check_placed(least, resources, placement)
    check_free(least, resources)
    return ray.train.ScalingConfig(
        num_workers=num_workers if min_workers is None else (min_workers, num_workers),
        use_gpu=use_gpu,
        resources_per_worker=resources,
        placement_strategy=placement.strategy,
        label_selector=dict(placement.node_labels) or None,
        accelerator_type=placement.accelerator_type,
        elastic_resize_monitor_interval_s=resize_s,
    )
