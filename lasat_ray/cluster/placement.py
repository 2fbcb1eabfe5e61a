"""Which machines of a cluster the workers may lie on, and whether they fit there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from lasat_ray.cli.placement import Spread, WorkerOptions, labels_of
from lasat_ray.errors import UsageError

Resources = Mapping[str, float]
_GPU_TYPE = "accelerator_type:"
"""Ray gives a machine with such a GPU the resource ``accelerator_type:H100``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Wishes about machines: a GPU type as Ray names it, labels (Ray's selector: ``eu``, ``!eu``,
    ``in(eu,us)``), and whether workers lie close together or apart."""

    accelerator_type: str | None = None
    node_labels: Mapping[str, str] = field(default_factory=dict)
    spread: Spread = "pack"

    @classmethod
    def of(cls, options: WorkerOptions) -> Placement:
        """As the command line says it; UsageError for labels that are none."""
        return cls(
            accelerator_type=options.accelerator_type,
            node_labels=labels_of(options.node_labels),
            spread=options.placement,
        )

    @property
    def strategy(self) -> str:
        """Ray's word for ``spread``."""
        return self.spread.replace("-", "_").upper()

    @property
    def resource(self) -> dict[str, float]:
        """What a process reserves to lie beside the GPU type; nothing where none is asked for."""
        return {f"{_GPU_TYPE}{self.accelerator_type}": 0.001} if self.accelerator_type else {}


ANYWHERE = Placement()


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a machine's labels are what Ray's selector asks for; a label it lacks equals nothing."""
    return all(_is(labels.get(key), wanted) for key, wanted in selector.items())


def _is(value: str | None, wanted: str) -> bool:
    if wanted.startswith("!"):
        return not _is(value, wanted[1:])
    if wanted.startswith("in("):
        return value in [name.strip() for name in wanted[3:-1].split(",")]
    return value == wanted


def check_placed(
    num_workers: int, each: Resources, placement: Placement, nodes: Iterable[Mapping[str, Any]] | None = None
) -> None:
    """UsageError naming what the cluster lacks where ``num_workers`` workers that take ``each`` can never lie
    as asked. ``nodes``: as ``ray.nodes()`` gives them (default: the connected cluster's)."""
    room = [_room(node["Resources"], each) for node in fitting(placement, nodes)]
    have = {
        "strict-pack": max(room, default=0),
        "strict-spread": sum(count > 0 for count in room),
    }.get(placement.spread, sum(room))
    if have < num_workers:
        where = "on one machine" if placement.spread == "strict-pack" else "on as many machines"
        where = where if placement.spread.startswith("strict") else "on the machines asked for"
        need = ", ".join(f"{amount:g} {name}" for name, amount in each.items())
        option = "--placement" if placement.spread.startswith("strict") else "--num-workers"
        raise UsageError(
            f"{option}: {num_workers} workers of {need} do not fit {where}, {have} do; ask for fewer workers "
            "or another place"
        )


def fitting(
    placement: Placement, nodes: Iterable[Mapping[str, Any]] | None = None
) -> list[Mapping[str, Any]]:
    """The machines of ``nodes`` (default: the connected cluster's) with the GPU type and labels that are
    asked for; UsageError naming what none has."""
    alive = [node for node in (ray.nodes() if nodes is None else nodes) if node["Alive"]]
    kind = placement.accelerator_type
    known = sorted({name.removeprefix(_GPU_TYPE) for node in alive for name in _gpu_types(node)})
    if kind is not None and kind not in known:
        told = f"no machine of this cluster has '{kind}' (found {', '.join(known) or 'no GPU'})"
        raise UsageError(f"--accelerator-type: {told}; name one that is there, or add such machines")
    found = [node for node in alive if matches(node["Labels"], placement.node_labels)]
    if not found:
        asked = " ".join(f"{key}={value}" for key, value in placement.node_labels.items())
        told = f"'{asked}' fits none of the {len(alive)} machines of this cluster"
        raise UsageError(f"--node-labels: {told}; see their labels with ray.nodes()")
    if kind is not None:
        found = [node for node in found if f"{_GPU_TYPE}{kind}" in node["Resources"]]
    return found


def _gpu_types(node: Mapping[str, Any]) -> list[str]:
    return [name for name in node["Resources"] if name.startswith(_GPU_TYPE)]


def _room(resources: Resources, each: Resources) -> int:
    """How many workers a machine has room for."""
    counts = [math.floor(resources.get(name, 0.0) / need + 1e-6) for name, need in each.items() if need]
    return min(counts, default=0)
