"""What a run may spend, in passes or seconds, and how much of it is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lasat_ray.config import TrainConfig
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.learners import Learner
from lasat_ray.models import eval_mode
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.runs.numerics import copied
from lasat_ray.runs.records import records_in
from lasat_ray.types import RoundReport
from lasat_ray.update.cost import counted_passes, record_parts

_KEPT = 4  # rounds whose spending is remembered one by one


class Budget:
    """The amount that a run spends instead of a number of epochs; the same on every worker.

    Schedules follow the share that is spent. Round t knows what was spent through round t - 2, on every
    device: on a GPU the numbers of round t - 1 are still on their way when round t begins. The run ends
    with the round after which the amount is nearest to the limit, if the last rounds cost alike.

    ``num_images``: training images, those that are held out for the reward among them; a limit in passes
    is per such image. ``strategy_pass``: what a pass of the strategy net costs in passes of the target net.
    """

    def __init__(self, config: TrainConfig, num_images: int, strategy_pass: float = 1.0):
        self.config, self.strategy_pass = config, strategy_pass
        self.limit = 60 * config.budget_minutes or config.budget_passes * num_images
        self.by_time = config.budget_minutes > 0
        self._rounds, self._spent = [-1], [0.0]

    @property
    def spent(self) -> float:
        """All that is known to be spent, in passes or seconds."""
        return self._spent[-1]

    @property
    def share(self) -> float:
        """The part of the limit that is known to be spent."""
        return self.spent / self.limit

    def progress(self, round: int) -> float:
        """The share of the limit, in [0,1), that schedules of ``round`` go by."""
        return min(self._known(round - 2)[-1] / self.limit, 1 - 1e-9)

    def is_over(self, round: int) -> bool:
        """Whether the run ends before ``round``: half of another round like the last would be too much."""
        known = self._known(round - 2)
        last = known[-1] - known[-2] if len(known) > 1 else 0.0
        return known[-1] + 1.5 * last > self.limit

    def _known(self, round: int) -> list[float]:
        """What was spent through the last rounds up to ``round``, in order."""
        return [spent for r, spent in zip(self._rounds, self._spent, strict=True) if r <= max(round, -1)]

    def figures(self, report: RoundReport, seconds: float, group: ProcessGroup) -> Tensor:
        """What ``add`` has to know, [F] float64, still on the device; to be summed over workers."""
        if self.by_time:  # the first worker's clock counts
            return report.sums["num_steps"].new_full((1,), seconds * group.is_first)
        return torch.stack(list(_means(report, group.size).values()))

    def add(self, report: RoundReport, figures: list[float]) -> None:
        """Count a round; ``figures``: those of ``figures``, summed over the workers."""
        if self.by_time:
            (amount,) = figures
        else:
            record = dict(zip(_means(report, 1), figures, strict=True))
            record |= {"progress": report.progress or 0.0}
            parts = record_parts(self.config, record | {"reward": 0.0} if "reward" in report.sums else record)
            strategy = parts.pop("strategy net")
            amount = self.config.batch_size * (sum(parts.values()) + self.strategy_pass * strategy)
        self._rounds = [*self._rounds, report.round][-_KEPT:]
        self._spent = [*self._spent, self.spent + amount][-_KEPT:]

    def state_dict(self) -> dict[str, Any]:
        """The last rounds and what was spent through each."""
        return {"rounds": list(self._rounds), "spent": list(self._spent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._rounds, self._spent = list(state["rounds"]), list(state["spent"])


def _means(report: RoundReport, num_workers: int) -> dict[str, Tensor]:
    """What a round's cost depends on, by the names of its record; this worker's part of each, 0-d float64."""
    names = ("num_steps", "steps_taken", "steps_looked")
    means = {name: report.sums[name].double() / report.global_size for name in names if name in report.sums}
    if "policy_epochs" in report.scalars:  # the same on every worker
        means["policy_epochs"] = report.scalars["policy_epochs"].double() / num_workers
    return means


def budget_of(config: TrainConfig, num_images: int, strategy_pass: float) -> Budget | None:
    """The budget of a run of ``num_images`` training images; None where epochs end it."""
    if not config.budget_passes and not config.budget_minutes:
        return None
    return Budget(config, num_images, strategy_pass)


def strategy_pass(env: AttackStrategyVectorEnv, learner: Learner) -> float:
    """The arithmetic of a look of the strategy net over that of a forward pass of the target net, as
    PyTorch counts it on the present batch; 0 where nothing is learned, 1 where the counter sees nothing."""
    from torch.utils.flop_counter import FlopCounterMode  # late: a second of imports

    if env.config.strategy != "learned":
        return 0.0
    before, batch = copied(learner.state_dict()), env.batch
    with torch.no_grad(), eval_mode(env.net), FlopCounterMode(display=False) as target:
        env.net(batch.x)
    with torch.no_grad(), FlopCounterMode(display=False) as strategy:
        learner.act(batch.x, batch.index, RandomKey.of(env.seed, "arithmetic"))
    learner.load_state_dict(before)
    found = target.get_total_flops()
    return strategy.get_total_flops() / found if found else 1.0


def spent_passes(
    config: TrainConfig, metrics: Path, num_images: int, strategy_pass: float
) -> dict[str, float]:
    """What training cost by its records, in passes of the target net: ``passes``, and per training image."""
    rounds = (record for record in records_in(metrics) if record["kind"] == "round")
    target, strategy = counted_passes(config, rounds)
    passes = target + strategy_pass * strategy
    return {"passes": passes, "passes_per_image": passes / num_images, "strategy_pass": strategy_pass}
