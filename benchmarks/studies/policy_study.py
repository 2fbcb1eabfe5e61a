"""What the default run's policy has learned: lengths and budgets over training, by class and by margin.

    python -m benchmarks.studies.policy_study --seeds 10 11 12
    python -m benchmarks.tables docs/strategy_learning.md

At every validated epoch the policy is asked for each image of the training set; nothing is drawn. How much
of the choice an image explains: the variance of the number of steps is split into that between epochs, that
between the classes of an epoch, that between the images of a class, and that of drawing from the policy.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.common import made_by, read_record, write_record
from benchmarks.tables.marked import markdown
from lasat_ray.cli.run_options import parse_train
from lasat_ray.cluster.local import train_here
from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.data import Images, load_dataset
from lasat_ray.env.observation import margins
from lasat_ray.rng import RandomKey
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.load import load_model
from lasat_ray.training.tracked_images import strategy_shares
from lasat_ray.training.trained_policy import load_policy
from lasat_ray.types import Batch

RECORD = "policy_digits"
PARTS = 5
"""As many equal groups of images by margin."""
LEVELS = ("epochs", "classes", "images", "draws")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run."""

    seeds: tuple[int, ...] = (10, 11, 12)
    out: Path = Path("runs/policy_study")
    """Folder of the runs; made anew."""
    flags: tuple[str, ...] = ()
    """More options of lasat_ray.train, for a trial of this study itself."""


def look(folder: RunFolder, config: TrainConfig, images: Images) -> dict[str, Tensor]:
    """Of N images now: mean and variance of the steps the policy takes, mean budget, margin; [N] float64."""
    policy = load_policy(folder, config, images.image_shape)
    x, grid = images.x.float() / 255, grid_of(config)
    shares = dict(zip(grid, strategy_shares(policy.learner, policy.space, x, RandomKey.of(0)), strict=True))

    def moment(field: str, power: int) -> Tensor:
        return (shares[field].double() * torch.tensor(grid[field], dtype=torch.float64) ** power).sum(1)

    batch = Batch(x=x, y=images.y, index=torch.arange(len(x)), global_size=len(x))
    steps = moment("num_steps", 1)
    return {
        "steps": steps,
        "variance": moment("num_steps", 2) - steps**2,
        "eps": moment("eps", 1),
        "margin": margins(load_model(folder.path, which="last"), batch).double(),
    }


def summed_up(seen: dict[str, Tensor], y: Tensor, epoch: int) -> dict[str, Any]:
    """What the record keeps of an epoch; groups of equal size by margin, smallest first."""
    by_margin = seen["margin"].argsort().tensor_split(PARTS)
    classes = [seen["steps"][y == label] for label in y.unique()]
    within = sum(((c - c.mean()) ** 2).sum() for c in classes) / len(y)
    between = sum(len(c) * (c.mean() - seen["steps"].mean()) ** 2 for c in classes) / len(y)
    return {
        "epoch": epoch,
        "steps": seen["steps"].mean().item(),
        "eps": seen["eps"].mean().item(),
        "steps_by_class": [c.mean().item() for c in classes],
        "steps_by_margin": [seen["steps"][rows].mean().item() for rows in by_margin],
        "eps_by_margin": [seen["eps"][rows].mean().item() for rows in by_margin],
        "variance": [float(between), float(within), seen["variance"].mean().item()],
    }


def explained(epochs: list[dict[str, Any]]) -> list[float]:
    """Shares in [0,1] of the variance of the number of steps, for ``LEVELS``."""
    means = [epoch["steps"] for epoch in epochs]
    parts = [statistics.pvariance(means)]
    parts += [statistics.mean(epoch["variance"][n] for epoch in epochs) for n in range(3)]
    return [part / sum(parts) for part in parts]


def run_seed(seed: int, options: Options) -> dict[str, Any]:
    """Train one seed and look at its policy at every validated epoch."""
    path = options.out / f"s{seed}"
    shutil.rmtree(path, ignore_errors=True)
    config, _ = parse_train([*options.flags, "--seed", str(seed)])
    folder, epochs = RunFolder.create(path, config), list[dict[str, Any]]()
    train = load_dataset(config.dataset, root="", max_train=None, max_test=None, seed=seed).train
    images = train.take(torch.arange(len(train)))

    def after_epoch(record: dict[str, Any]) -> None:
        epochs.append(summed_up(look(folder, config, images), images.y, record["epoch"]))

    summary = train_here(config, folder, device="cpu", after_epoch=after_epoch)
    return {"seed": seed, "passes": summary["passes_per_image"], "images": len(images), "epochs": epochs}


def tables() -> dict[str, str]:
    """By time and margin, and what explains the choice; means over seeds."""
    record = read_record(RECORD)
    runs = record["runs"]
    count = len(runs[0]["epochs"])
    shown = sorted({0, count // 4, count // 2, 3 * count // 4, count - 1})

    def mean(name: str, n: int, of: Callable[[Any], float] = float) -> str:
        return f"{statistics.mean(of(run['epochs'][n][name]) for run in runs):.2f}"

    rows = []
    for n in shown:
        parts = [mean("steps_by_margin", n, itemgetter(part)) for part in range(PARTS)]
        extremes = [mean("steps_by_class", n, of) for of in (min, max)]
        rows.append([runs[0]["epochs"][n]["epoch"], mean("steps", n), mean("eps", n), *parts, *extremes])
    head = ["after epoch", "steps", "eps", "steps: smallest margins", *("",) * (PARTS - 2), "largest"]
    head += ["class with fewest", "with most"]
    shares = [explained(run["epochs"]) for run in runs]
    told = ", ".join(
        f"{level} {100 * statistics.mean(s[n] for s in shares):.1f} %" for n, level in enumerate(LEVELS)
    )
    caption = (
        f"Digits, the default recipe, {len(runs)} seeds, {runs[0]['images']:,} images; "
        "expected steps and budget of the policy, means over images and seeds; five equal groups by the "
        f"target net's margin. What explains the variance of the number of steps: {told}."
    )
    return {"policy": markdown(head, rows, caption)}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = []
    for seed in options.seeds:
        runs.append(run_seed(seed, options))
        write_record(RECORD, {**made_by("benchmarks.studies.policy_study"), "runs": runs})


if __name__ == "__main__":
    main()
