"""Expected efficiency of data-parallel training on 1 to 1,024 GPUs, stragglers included.

    python -m benchmarks.scaling

Counted here: FLOPs and kernels of a forward pass, bytes and messages that a real round hands to
``torch.distributed``, step counts that a learned policy really draws, and the attack time of two real
processes, with and without balancing. Assumed: what ``Cluster`` says of GPUs and links (options).
``benchmarks/scaling_docs.py`` writes the tables.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import tyro
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import envs.attack_strategy as game
from benchmarks.scaling_model import Cluster, Net, balanced, simulate, step_counts
from envs.attack_strategy import AttackStrategyVectorEnv
from envs.build import build_game
from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.data import Images
from lasat_ray.folder import provenance
from lasat_ray.learners import Learner, LearnerContext, make_learner
from lasat_ray.loop import load_config_dataset
from lasat_ray.models import batch_norm_buffers, build_classifier
from lasat_ray.recipes import get_recipe
from lasat_ray.round import play_round
from lasat_ray.world import World

RECORDS = Path(__file__).parent / "records"
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


def make_game(config: TrainConfig, images: Images, world: World) -> tuple[AttackStrategyVectorEnv, Learner]:
    """Env and learner of a worker, without folder or evaluation."""
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    env = build_game(config, images, int(images.y.max()) + 1, world=world, device=cpu)
    shape = images.image_shape
    context = LearnerContext(space=env.space, image_shape=shape, config=config, world=world, device=cpu)
    return env, make_learner(context)


def noise(count: int, side: int = IMAGE[1]) -> Images:
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=rng)
    return Images(x, torch.arange(count) % 10)


def messages(model: str, strategy_model: str = "resnet18") -> dict[str, list[int]]:
    """Bytes of each all-reduce of a round of LAS-AT: one that only trains, and one that is rewarded.

    The round is that of the first of two workers, one small image each (weights are the same for any
    size), attacks of one step; nobody answers.
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
        data=replace(base.data, max_train=None),
    )
    sent: list[int] = []

    def note(tensor: Tensor, *_: Any, **__: Any) -> None:
        sent.append(tensor.nbytes)

    with patch.object(dist, "broadcast"), patch.object(dist, "all_reduce", note):
        env, learner = make_game(config, noise(10, side=16), World(0, 2))
        found = {}
        for kind in ("trains", "rewarded"):
            sent.clear()
            play_round(env, learner)
            found[kind] = list(sent)
    return found


def learned_draws(rounds: int) -> tuple[list[int], list[int]]:
    """Step counts and how often the digits recipe's policy drew each, in the last half of its rounds."""
    config = get_recipe("digits").config
    env, learner = make_game(config, load_config_dataset(config).train, World())
    sizes, place = env.space.sizes, env.space.names.index("num_steps")
    first = sum(sizes[:place])
    counts = torch.zeros(sizes[place])
    for n in range(rounds):
        report = play_round(env, learner)
        if n >= rounds // 2:
            counts += report.option_counts[first : first + sizes[place]]
    return [int(s) for s in grid_of(config)["num_steps"]], [int(c) for c in counts]


def attack_worker(rank: int, rounds: int, folder: str) -> None:
    """One of two processes: processor seconds of each round's attack, balanced in every other round."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    rendezvous = {"init_method": f"file://{folder}/meet", "timeout": timedelta(seconds=300)}
    dist.init_process_group("gloo", rank=rank, world_size=2, **rendezvous)
    base = get_recipe("cifar10-cpu").config
    seconds: dict[str, list[float]] = {}
    config = replace(base, strategy="random", batch_size=32, data=replace(base.data, max_train=None))
    attack, spent = game.attack_batch, [0.0]

    def timed(*args: Any, **kwargs: Any) -> Tensor:
        began = time.process_time()
        x_adv = attack(*args, **kwargs)
        spent[0] += time.process_time() - began
        return x_adv

    with patch.object(game, "attack_batch", timed):
        for balance in (False, True):
            chosen = replace(config, speed=replace(config.speed, balance=balance))
            env, learner = make_game(chosen, noise(512), World(rank, 2))
            found = seconds["balanced" if balance else "as drawn"] = []
            for n in range(rounds + 2):
                spent[0] = 0.0
                play_round(env, learner)
                if n >= 2:
                    found.append(spent[0])
    Path(folder, f"{rank}.json").write_text(json.dumps(seconds))
    dist.destroy_process_group()


def two_processes(rounds: int) -> dict[str, Any]:
    """Attack seconds of both processes round by round; how much longer the slower took than the mean."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(attack_worker, args=(rounds, folder), nprocs=2)
        both = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(2)]
    found: dict[str, Any] = {}
    for kind in both[0]:
        pairs = list(zip(both[0][kind], both[1][kind], strict=True))
        excess = [2 * max(pair) / sum(pair) - 1 for pair in pairs]
        found[kind] = {"seconds": pairs, "excess": excess, "mean_excess": statistics.fmean(excess)}
    drawn = step_counts(uniform(), 2000, 2, 16)
    for kind, images_RWS in (("as drawn", drawn), ("balanced", balanced(drawn)[0])):
        load_RW = images_RWS @ np.arange(drawn.shape[-1])
        found[kind]["expected_excess"] = float((load_RW.max(1) / load_RW.mean(1)).mean() - 1)
    return found


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
            small_messages=len(sent["trains"]) - 1 + 1 + more,  # and the trainer's vote after each round
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
        file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
