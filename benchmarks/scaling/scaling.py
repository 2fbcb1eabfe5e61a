"""Expected efficiency of data-parallel training on 1 to 1,024 GPUs, stragglers included.

    python -m benchmarks.scaling.scaling

Counted here: FLOPs and kernels of a forward pass, bytes and messages that a real round hands to
``torch.distributed``, step counts that a learned policy really draws, and the attack time of two real
processes, with and without balancing. Assumed: what ``Cluster`` says of GPUs and links (options).
``python -m benchmarks.tables`` writes the tables.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
import tyro
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import RECORDS, make_round, random_images, write_record
from benchmarks.scaling.scaling_model import Cluster, Net, policies, simulate, uniform
from benchmarks.scaling.two_processes import two_processes
from lasat_ray.config import grid_of
from lasat_ray.models import batch_norm_buffers, build_classifier
from lasat_ray.process_group import ProcessGroup
from lasat_ray.recipes import get_recipe
from lasat_ray.runs.folder import provenance
from lasat_ray.runs.numerics import RoundStatus
from lasat_ray.training.inputs import load_config_dataset
from lasat_ray.training.round import play_round

IMAGE = (3, 32, 32)
INTERVAL = 40
MANY = 4000  # workers' rounds of a simulated case at least


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to simulate."""

    cluster: Cluster = field(default_factory=Cluster)
    nets: tuple[str, ...] = ("resnet18", "wrn-34-10", "wrn-70-16")
    """Target nets; the strategy net is a ResNet-18."""
    gpus: tuple[int, ...] = (1, 2, 8, 16, 64, 256, 1024)
    """Workers, one GPU each."""
    per_gpu: tuple[int, ...] = (128, 32)
    """Images a GPU where batches grow with the GPUs."""
    total: int = 1024
    """Images of a round where they do not."""
    rounds: int = 20
    """Simulated rounds a case at least."""
    drawn: int = 60
    """Rounds of the digits recipe whose step counts are those of a learned policy."""
    measured: int = 12
    """Rounds of two real processes."""
    parts: tuple[Literal["count", "draw", "processes", "simulate"], ...] = (
        "count",
        "draw",
        "processes",
        "simulate",
    )
    """What to do now; the rest stays as the record has it."""
    record: str = "scaling"
    """Name of the file in benchmarks/records."""


class Kernels(TorchDispatchMode):
    """Counts the operations that reach the device; views start no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view and "detach" not in str(func)
        return func(*args, **(kwargs or {}))


def forward_counts(model: str) -> tuple[float, int]:
    """FLOPs (a multiply and an add are two) and kernels of one image's forward pass in eval mode."""
    with torch.device("meta"):
        net = build_classifier(model, num_classes=10, image_shape=IMAGE).eval()
        x = torch.zeros(1, *IMAGE)
    flops, kernels = FlopCounterMode(display=False), Kernels()
    with torch.no_grad(), flops:
        net(x)
    with torch.no_grad(), kernels:
        net(x)
    return float(flops.get_total_flops()), kernels.count


def messages(model: str, strategy_model: str = "resnet18", *, synced: bool = False) -> dict[str, list[int]]:
    """Bytes of each all-reduce of a round of LAS-AT: one that only trains, and one that is rewarded.

    The round is that of the first of two workers, one small image each (weights are the same for any
    size), attacks of one step; nobody answers. The vote with which the loop ends a round is its last. The
    first rewarded round, in which the strategy net's BatchNorm layers take over what they see one after the
    other, is not counted. ``synced``: with --optim.sync-batch-norm.
    """
    base = get_recipe("table1-cifar10-resnet18-las-at-k40").config
    short = {name: values if name != "num_steps" else (1.0,) for name, values in grid_of(base).items()}
    config = replace(
        base,
        model=model,
        strategy_model=strategy_model,
        batch_size=2,
        update_interval=2,
        attack=replace(base.attack, grid=short),
        reward=replace(base.reward, ref_num_steps=1),
        optim=replace(base.optim, sync_batch_norm=synced),
        data=replace(base.data, max_train=None),
    )
    sent: list[int] = []

    def note(tensor: Tensor, *_: Any, **__: Any) -> None:
        sent.append(tensor.nbytes)

    with patch.object(dist, "broadcast"), patch.object(dist, "all_reduce", note):
        env, learner = make_round(config, random_images(10, side=16), group=ProcessGroup(0, 2))
        found = {}
        for kind in ("trains", "first", "trains", "rewarded"):
            sent.clear()
            report = play_round(env, learner)
            RoundStatus(report, stop=False, failed=False, group=ProcessGroup(0, 2)).read()
            found[kind] = list(sent)
    return {kind: found[kind] for kind in ("trains", "rewarded")}


def learned_draws(rounds: int) -> tuple[list[int], list[int]]:
    """Step counts and how often the digits recipe's policy drew each, in the last half of its rounds."""
    config = replace(get_recipe("digits").config, learner="reinforce")  # as it was when this was recorded
    env, learner = make_round(config, load_config_dataset(config).train)
    sizes, place = env.space.sizes, env.space.names.index("num_steps")
    first = sum(sizes[:place])
    counts = torch.zeros(sizes[place])
    for n in range(rounds):
        report = play_round(env, learner)
        if n >= rounds // 2:
            counts += report.option_counts[first : first + sizes[place]]
    return [int(s) for s in grid_of(config)["num_steps"]], [int(c) for c in counts]


def size_of(options: Options, workers: int, images: int) -> dict[str, int]:
    """What ``simulate`` asks for; few workers play more rounds, so that as many attacks are averaged."""
    pixels = 4 * IMAGE[0] * IMAGE[1] * IMAGE[2]
    rounds = max(options.rounds, MANY // workers)
    return {"workers": workers, "images": images, "rounds": rounds, "image_bytes": pixels}


def waits(net: Net, options: Options, found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What the slowest costs, for every policy, images a GPU and number of GPUs."""
    rows = []
    for name, p_S in found.items():
        for images in (1, 8, *sorted(options.per_gpu)):
            for workers in (2, 8, 64, 1024):
                told = simulate(net, options.cluster, p_S, **size_of(options, workers, images))
                rows.append(
                    {"policy": name, **{k: told[k] for k in ("workers", "images", "wait", "wait_balanced")}}
                )
    return rows


def summed_bytes(model: str) -> int:
    """What a round sums over the workers: gradients, and the statistics of BatchNorm; all float32."""
    with torch.device("meta"):
        net = build_classifier(model, num_classes=10, image_shape=IMAGE)
    return 4 * sum(tensor.numel() for tensor in (*net.parameters(), *batch_norm_buffers(net)))


def count(options: Options) -> dict[str, Any]:
    """FLOPs, operations and bytes of every net; the messages of real rounds with the first."""
    first, (strategy_flops, _) = options.nets[0], forward_counts("resnet18")
    sent, nets = messages(first), {}
    assert max(sent["trains"]) == summed_bytes(first)
    more = (len(sent["rewarded"]) - len(sent["trains"])) / INTERVAL
    for model in options.nets:
        flops, kernels = forward_counts(model)
        nets[model] = Net(
            flops=flops,
            kernels=kernels,
            gradient_bytes=summed_bytes(model),
            small_messages=len(sent["trains"]) - 1 + more,
            strategy_flops=strategy_flops,
        )
    return {"nets": {model: asdict(net) for model, net in nets.items()}, "messages": sent}


def draw(options: Options) -> dict[str, Any]:
    steps, counts = learned_draws(options.drawn)
    return {"learned": {"steps": steps, "counts": counts}}


def simulate_all(options: Options, record: dict[str, Any]) -> dict[str, Any]:
    """Every net, number of GPUs and images a GPU; and the waits of the last net."""
    nets = {model: Net(**net) for model, net in record["nets"].items()}
    cases = []
    for model, net in nets.items():
        for workers in options.gpus:
            for images in sorted({*options.per_gpu, max(1, options.total // workers)}):
                size = size_of(options, workers, images)
                cases.append({"net": model, **simulate(net, options.cluster, uniform(), **size)})
    found = policies(**record["learned"])
    return {"cases": cases, "waits": waits(nets[options.nets[-1]], options, found)}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    file = RECORDS / f"{options.record}.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    record |= {**provenance(), "settings": asdict(options)}
    for part in options.parts:
        if part == "count":
            record |= count(options)
        elif part == "draw":
            record |= draw(options)
        elif part == "processes":
            record["two processes"] = two_processes(options.measured)
        else:
            record |= simulate_all(options, record)
        write_record(options.record, record)


if __name__ == "__main__":
    main()
