"""PGD-AT, LAS-AT (k = 40) and the rate objective on CIFAR-10, trained for equal seconds on one GPU.

``python -m benchmarks.gpu.first_contest --dataset parquet:PATH --out FILE`` trains each of Table 1's recipes
for ``--train-seconds``, one after the other, its learning rate following the share that is spent; then PGD-50
on 2,000 test images and APGD (cross-entropy and targeted) on 500. No Ray, no network. The record is
written anew after every section, and a row that has no time left is told as skipped; the exit status tells of
sections that failed. ``--tiny --device cpu`` tries it on digits.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.gpu.gpu_bench import Bench, Options
from benchmarks.gpu.reproduce_table1 import Options as RowOptions
from benchmarks.gpu.reproduce_table1 import row_config
from lasat_ray.config import EvalConfig, TrainConfig
from lasat_ray.data import load_dataset
from lasat_ray.evaluation import EvaluationPlan, evaluate_net
from lasat_ray.process_group import ProcessGroup
from lasat_ray.recipes.rate import STEPS, rated
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.load import load_checkpointed
from lasat_ray.training.context import RunContext
from lasat_ray.training.inputs import load_config_dataset
from lasat_ray.training.loop import Trainer

ROWS = ("pgd-at", "las-at-k40", "rate")
SHARES = (0.25, 0.5, 0.75, 1.0, 1.25)
"""Step sizes of the rate row, in its eps, as of every recipe NAME-rate."""


@dataclass(frozen=True, kw_only=True)
class ContestOptions(Options):
    """What to measure, and for how long."""

    train_seconds: float = 65.0
    """Training of each row, with --tiny 2; validation, at its end, is not counted."""
    compile: str = "none"
    """As --speed.compile."""

    @property
    def row_seconds(self) -> float:
        """What a row may train."""
        return 2.0 if self.tiny else self.train_seconds


def contest_config(options: ContestOptions, row: str, dataset: str) -> TrainConfig:
    """A row of Table 1 with a budget of seconds, validated once at its end."""
    chosen = RowOptions(
        dataset=dataset,
        compile=options.compile,  # type: ignore[arg-type]
        tiny=options.tiny,
    )
    config = row_config(chosen, "pgd-at" if row == "pgd-at" else "las-at-k40")
    if row == "rate":
        eps = config.attack.eps
        grid = {"eps": (eps,), "num_steps": STEPS, "step_size": tuple(eps * share for share in SHARES)}
        config = rated(config, grid, name=config.recipe, alpha=2.0)
        if options.tiny:
            config = replace(config, reward=replace(config.reward, outcome_images=8))
    steps = (2,) if options.tiny else (50,)
    tested = EvalConfig(every=10_000, val_num_steps=2 if options.tiny else 10, test_num_steps=steps)
    return replace(
        config,
        budget_minutes=options.row_seconds / 60,
        data=replace(config.data, max_test=8 if options.tiny else 2000),
        evaluation=tested,
    )


def kept_as_arrays(spelling: str, place: Path) -> dict[str, Any]:
    """The data set decoded once for all rows, as ``images.npz`` in ``place``; how many images."""
    dataset = load_dataset(spelling, root="~", max_train=None, max_test=None, seed=0)
    train, test = dataset.train.take(torch.arange(len(dataset.train))), dataset.load_test()
    np.savez(
        place / "images.npz",
        image=train.x.permute(0, 2, 3, 1).numpy(),
        label=train.y.numpy(),
        test_image=test.x.permute(0, 2, 3, 1).numpy(),
        test_label=test.y.numpy(),
        class_names=np.array(dataset.class_names),
    )
    return {"n_train": len(train), "n_test": len(test)}


def trained(bench: Bench, config: TrainConfig, place: Path) -> dict[str, Any]:
    """The summary of a run, which ends with PGD-50."""
    folder = RunFolder.create(place, config)
    context = RunContext(group=ProcessGroup(), device=bench.device, folder=folder)
    return Trainer(config, context).run()


def attacked(bench: Bench, config: TrainConfig, place: Path) -> dict[str, Any]:
    """APGD on the net that a row ended with."""
    net, _ = load_checkpointed(place, which="last", device=bench.device)
    images = load_config_dataset(config).load_test()
    attacks = ("clean", "apgd-ce") if bench.options.tiny else ("clean", "apgd-ce", "apgd-t")
    plan = EvaluationPlan(
        attacks=attacks,
        eps=config.evaluation.eps,
        n_examples=4 if bench.options.tiny else 500,
        chunk_size=4 if bench.options.tiny else 500,
        worst_case=True,
        sanity_examples=0,
    )
    report = evaluate_net(net, images, plan, out=None, device=bench.device)
    return {name: found["accuracy"] for name, found in report["attacks"].items()} | {
        "worst_case": report["worst_case"]["accuracy"],
        "n": report["n"],
    }


def run(bench: Bench, options: ContestOptions, place: Path) -> None:
    spelling = "digits"
    if not options.tiny:
        bench.section("data", lambda: kept_as_arrays(options.dataset or "", place))
        if "n_train" not in bench.record["sections"]["data"]:
            return
        spelling = f"npz:{place / 'images.npz'}"
    configs = {row: contest_config(options, row, spelling) for row in ROWS}
    for row, config in configs.items():
        needs = options.row_seconds + 10
        bench.section(f"train {row}", partial(trained, bench, config, place / row), needs=needs)
    for row, config in configs.items():
        if "error" not in (told := bench.record["sections"][f"train {row}"]) and "skipped" not in told:
            bench.section(f"attack {row}", partial(attacked, bench, config, place / row), needs=5.0)


def main() -> None:
    options = tyro.cli(ContestOptions, description=__doc__)
    if not options.tiny and not options.dataset:
        raise SystemExit("first_contest: --dataset is missing; give CIFAR-10, for example parquet:PATH")
    bench = Bench(replace(options, dataset=None))
    bench.record["settings"]["dataset"] = "given" if options.dataset else "digits"
    with tempfile.TemporaryDirectory() as place:
        run(bench, options, Path(place))
    bench.end("first_contest")


if __name__ == "__main__":
    main()
