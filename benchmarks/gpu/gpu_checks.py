"""Is what the GPU computes right? Attacks against the CPU and golden vectors, repeated runs bit by bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.gpu_bench import Bench, make_game, model_names, round_config
from lasat_ray.attacks import attack_batch
from lasat_ray.config import SpeedConfig
from lasat_ray.models import AttackView, build_classifier
from lasat_ray.rng import RandomKey
from lasat_ray.training.round import play_round
from lasat_ray.types import Batch, Strategy


def attack_case(device: torch.device, speed: SpeedConfig) -> torch.Tensor:
    """A float64 attack on a small ResNet, the same weights and numbers on any device."""
    torch.manual_seed(0)
    net = build_classifier("resnet18-4", num_classes=10, image_shape=(3, 32, 32), precision="fp64")
    net.to(device)
    count, rng = 12, torch.Generator().manual_seed(0)
    batch = Batch(
        x=torch.rand(count, 3, 32, 32, generator=rng, dtype=torch.float64).to(device),
        y=(torch.arange(count) % 10).to(device),
        index=torch.arange(count, device=device),
        global_size=count,
    )
    full = batch.x.new_ones(count)
    steps = (3 + torch.arange(count) % 12).to(device)
    strategy = Strategy(eps=full * 8 / 255, num_steps=steps, step_size=full * 2 / 255)
    view = AttackView(speed)(net, batch.x)
    x_adv = attack_batch(
        view, batch, strategy, RandomKey.of(0), loss="ce", start_kind="uniform", bucket=speed.bucket
    )
    return x_adv.cpu()


def correctness(bench: Bench) -> dict[str, Any]:
    """Largest differences of attacks; whether a repeated run gives the same bits."""
    exact = SpeedConfig(fold_batch_norm=False)
    ours = attack_case(bench.device, exact)
    others = {
        "float64_attack_from_cpu": attack_case(torch.device("cpu"), exact),
        "float64_attack_with_bucket": attack_case(bench.device, replace(exact, bucket=4)),
        "float64_attack_folded": attack_case(bench.device, SpeedConfig()),
    }
    return {
        **{name: float((ours - x_adv).abs().max()) for name, x_adv in others.items()},
        "golden_vectors": golden_difference(bench.device),
        "repeated_fp32_run_equal": repeated(bench, "fp32"),
        "repeated_bf16_run_equal": repeated(bench, "bf16"),
    }


def golden_difference(device: torch.device) -> float | str:
    """Largest difference from the published code's attack (tests/golden), float64."""
    try:
        from tests.support.golden_nets import load_tiny
        from tests.support.helpers import golden
    except ImportError as error:
        return f"tests are not here ({error})"
    case = golden("las_attack")
    weights = {name: case[name].numpy() for name in case if name.startswith("net.")}
    x, y = case["x"].to(device), case["y"].to(device)
    strategy = Strategy(
        eps=case["epsilon_255"].double().to(device) / 255,
        num_steps=case["iters"].to(device),
        step_size=case["step_255"].double().to(device) / 255,
    )
    batch = Batch(x=x, y=y, index=torch.arange(len(y), device=device), global_size=len(y))
    net = load_tiny(weights, "net.").to(device)
    x_adv = attack_batch(net, batch, strategy, RandomKey.of(0), loss="ce", start_kind="zero")
    return float((x_adv.cpu() - case["x_adv_zero"]).abs().max())


def repeated(bench: Bench, precision: str) -> bool:
    """A few LAS rounds twice from the same seed: are all weights equal bit for bit?"""
    nets = []
    for _ in range(2):
        config = round_config(
            bench.options, model_names(bench.options)[0], "las-at", SpeedConfig(), precision
        )
        env, learner = make_game(bench, replace(config, update_interval=2))
        for _ in range(2 if bench.options.tiny else 5):
            play_round(env, learner)
        nets.append([p.detach().cpu() for p in env.net.parameters()])
    return all(torch.equal(a, b) for a, b in zip(*nets, strict=True))
