"""What rounds of LAS-AT cost beside rounds of the same method with its fixed attack, and where time goes.

``python -m benchmarks.speed.round_cost --record NAME``: each turn plays one round with the fixed attack, one
of LAS without reward and one with, on the same net and batch size. The ratio at an update interval
k is (k - 1 rounds without + 1 with) / (k fixed rounds), the median over turns; beside it stands what
the cost model says. Seconds are processor time of this process on one thread, which other programs
disturb less than time on the wall. ``rooms``: share of each part in the three kinds of rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

import lasat_ray.env.attack_strategy as game
from benchmarks.common import ALONE, CPU, in_turn, make_round, random_images, write_record
from lasat_ray.config import TrainConfig
from lasat_ray.data import ImageDataset, TrainingImages, split_validation
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.learners import Learner
from lasat_ray.recipes import get_recipe
from lasat_ray.runs.folder import RunFolder, provenance
from lasat_ray.training.context import RunContext
from lasat_ray.training.inputs import load_config_dataset
from lasat_ray.training.loop import Trainer
from lasat_ray.training.round import play_round
from lasat_ray.update.target_step import TargetStep

INTERVALS = (1, 2, 4, 10, 20, 40, 60)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time."""

    model: str = "resnet18"
    """Target net."""
    strategy_models: tuple[str, ...] = ("small_cnn", "resnet18")
    """Strategy nets of the first method; the others get the first."""
    methods: tuple[str, ...] = ("pgd-at", "trades", "mart", "at-awp")
    credits: tuple[Literal["image", "influence"], ...] = ("image",)
    """Of the first method."""
    batch_size: int = 32
    repeats: int = 5
    digits: bool = False
    """The digits recipe as it is: its nets, grid, credit and images."""
    epoch_of: str | None = None
    """Instead: where the time of an epoch of this recipe goes, digits in full, others on few images."""
    epoch_images: int = 640
    """So many."""
    record: str | None = None
    """Name of the file in benchmarks/records."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table; ``config`` learns, its rival has the fixed attack."""

    name: str
    config: TrainConfig


class Rooms:
    """Seconds by part, each without the parts inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            self._inside.append(0.0)
            try:
                return work(*args, **kwargs)
            finally:
                spent, inside = time.process_time() - began, self._inside.pop()
                self.seconds[name] = self.seconds.get(name, 0.0) + spent - inside
                if self._inside:
                    self._inside[-1] += spent

        return run

    @contextmanager
    def watching(self, env: AttackStrategyVectorEnv, learner: Learner) -> Iterator[None]:
        """Inside the block the parts of a round are timed."""
        places: list[tuple[Any, str, str]] = [
            (game, "attack_batch", "attack"),
            (game, "reference_images", "reference attack"),
            (TargetStep, "__call__", "target step"),
            (learner, "act", "act"),
            (learner, "update", "policy step"),
            (env.batches, "batch", "data and augmentation"),
        ]
        if hasattr(learner, "act_to_learn"):
            places.append((learner, "act_to_learn", "act"))
        kept = [(owner, name, vars(owner).get(name)) for owner, name, _ in places]
        for owner, name, room in places:
            setattr(owner, name, self.timed(room, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, before in kept:
                if before is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, before)


class Runner:
    """A game that is played round by round, its kind of round known beforehand."""

    def __init__(self, config: TrainConfig, images: TrainingImages, classes: int) -> None:
        self.env, self.learner = make_round(config, images, classes)
        self.rooms = Rooms()
        self.steps: list[float] = []

    def play(self) -> float:
        """Processor seconds of one round."""
        with self.rooms.watching(self.env, self.learner):
            began = time.process_time()
            report = self.rooms.timed("rest", play_round)(self.env, self.learner)
            spent = time.process_time() - began
        self.steps.append(float(report.sums["num_steps"]) / report.global_size)
        return spent


def cases(options: Options) -> list[Case]:
    if options.digits:
        return [Case(name="digits recipe", config=get_recipe("digits").config)]
    base = get_recipe("table1-cifar10-resnet18-las-at-k40").config
    found = []
    for n, method in enumerate(options.methods):
        for strategy_model in options.strategy_models if n == 0 else options.strategy_models[:1]:
            for credit in options.credits if n == 0 else options.credits[:1]:
                reward = replace(base.reward, credit=credit, standardize=credit == "influence")
                config = replace(
                    base,
                    model=options.model,
                    strategy_model=strategy_model,
                    method=method,
                    batch_size=options.batch_size,
                    reward=reward,
                )
                found.append(Case(name=f"{method}, strategy net {strategy_model}, {credit}", config=config))
    return found


def images_of(case: Case, options: Options) -> tuple[TrainingImages, int]:
    if options.digits:
        dataset = load_config_dataset(case.config)
        return split_validation(dataset.train, case.config.data.val_fraction, 0)[0], dataset.num_classes
    return random_images(20 * options.batch_size), 10


def measure(case: Case, options: Options) -> dict[str, Any]:
    """Seconds of the three kinds of rounds turn by turn, ratios at each k, shares of the rooms."""
    images, classes = images_of(case, options)
    never = 10**9
    runners = {
        "fixed": Runner(replace(case.config, strategy="fixed"), images, classes),
        "without reward": Runner(replace(case.config, update_interval=never), images, classes),
        "with reward": Runner(replace(case.config, update_interval=1), images, classes),
    }
    for runner in runners.values():
        runner.play()  # not counted
        runner.rooms.seconds, runner.steps = {}, []
    seconds = in_turn({kind: runner.play for kind, runner in runners.items()}, options.repeats, warm_up=0)
    ratios = {
        str(k): statistics.median(
            ((k - 1) * plain + due) / (k * fixed) for fixed, plain, due in zip(*seconds.values(), strict=True)
        )
        for k in INTERVALS
    }
    return {
        "seconds": seconds,
        "median": {kind: statistics.median(values) for kind, values in seconds.items()},
        "mean_steps": {kind: statistics.mean(runner.steps) for kind, runner in runners.items()},
        "ratio_at_k": ratios,
        "rooms": {kind: shares(runner.rooms.seconds) for kind, runner in runners.items()},
        "config": {"batch_size": case.config.batch_size, "speed": asdict(case.config.speed)},
    }


def epoch_shares(config: TrainConfig, dataset: ImageDataset | None = None) -> dict[str, float]:
    """Share of an epoch spent in validation, in the records and in saving, at the run's own settings."""
    rooms = Rooms()
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder.create(Path(scratch) / "run", config)
        trainer = Trainer(config, RunContext(group=ALONE, device=CPU, folder=folder), dataset)
        for owner, name, room in (
            (trainer.evaluator, "validate", "validation"),
            (trainer, "_show_probe", "probe"),
            (trainer, "save", "checkpoint"),
            (trainer.recorder, "flush", "metrics"),
            (trainer, "finish", "final evaluation"),
        ):
            setattr(owner, name, rooms.timed(room, getattr(owner, name)))
        rooms.timed("rounds", trainer.run)()
    del rooms.seconds["final evaluation"]  # once a run, not an epoch's
    return shares(rooms.seconds)


def short_epoch(recipe: str, count: int) -> dict[str, float]:
    """The shares in an epoch of a recipe for large data sets, on ``count`` images of noise: rounds and
    validation shrink alike; what an epoch costs whatever its length weighs more than it does in a run."""
    config = get_recipe(recipe).config
    config = replace(config, epochs=1, evaluation=replace(config.evaluation, test_num_steps=(1,)))
    images = random_images(count)
    names = tuple(str(n) for n in range(10))
    dataset = ImageDataset("noise", images, names, lambda: images.take(torch.arange(2)))
    return epoch_shares(config, dataset)


def shares(seconds: dict[str, float]) -> dict[str, float]:
    total = sum(seconds.values())
    return {name: round(value / total, 4) for name, value in sorted(seconds.items(), key=lambda i: -i[1])}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    record: dict[str, Any] = {**provenance(), "settings": asdict(options), "cases": {}}
    if options.epoch_of:
        record["epoch"] = epoch_of(options)
        print(record["epoch"])
        write_record(options.record, record)
    for case in [] if options.epoch_of else cases(options):
        found = record["cases"][case.name] = measure(case, options)
        print(case.name, {k: round(v, 3) for k, v in found["ratio_at_k"].items()}, found["rooms"], flush=True)
        write_record(options.record, record)


def epoch_of(options: Options) -> dict[str, float]:
    assert options.epoch_of
    if options.epoch_of == "digits":
        return epoch_shares(replace(get_recipe("digits").config, epochs=4))
    return short_epoch(options.epoch_of, options.epoch_images)


if __name__ == "__main__":
    main()
