"""Searches as pure functions of what is known: random search, TPE, population-based training.

Every draw is named by the seed and the number of the candidate, and candidates are proposed a
generation at a time. So neither the number of trials at a time nor a restart changes a search.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.tune.trial import Outcome, Outcomes, Trial
from lasat_ray.update.cost import expected_passes

Point = dict[str, float]
FIELDS = ("eps", "num_steps", "step_size")
_RESAMPLE = (
    0.25  # PBT: probability that a field is drawn anew instead of moved by one (Jaderberg et al. 2017)
)

_ROUNDING = 1 + 1e-9  # a budget of six runs pays for six runs


def rng_of(*names: int) -> np.random.Generator:
    """Random numbers of one named draw."""
    return np.random.default_rng(np.random.SeedSequence(list(names)))


def with_strategy(config: TrainConfig, point: Mapping[str, float]) -> TrainConfig:
    """The run with this fixed strategy for every image."""
    attack = dataclasses.replace(
        config.attack, eps=point["eps"], num_steps=int(point["num_steps"]), step_size=point["step_size"]
    )
    return dataclasses.replace(config, strategy="fixed", attack=attack)


def strategies_of(config: TrainConfig) -> dict[str, tuple[float, ...]]:
    """The fixed strategies a search chooses from: the values that the learned strategy has too."""
    grid = grid_of(dataclasses.replace(config, strategy="learned"))
    return {name: tuple(sorted(grid[name])) for name in FIELDS}


def draw(space: Mapping[str, Sequence[float]], rng: np.random.Generator) -> Point:
    """One point, every value equally likely."""
    return {name: float(values[int(rng.integers(len(values)))]) for name, values in space.items()}


def random_search(config: TrainConfig, seed: int, budget: float) -> list[Trial]:
    """Fixed strategies drawn without repetition until the next would exceed ``budget`` (in passes of
    one image a round, see ``epoch_cost``)."""
    space, trials, spent, n = strategies_of(config), [], 0.0, 0
    seen: list[Point] = []
    while len(seen) < math.prod(len(values) for values in space.values()):
        point, n = draw(space, rng_of(seed, 1, n)), n + 1
        if point in seen:
            continue
        seen.append(point)
        candidate = with_strategy(config, point)
        spent += config.epochs * epoch_cost(candidate)
        if spent > budget * _ROUNDING:
            break
        trials.append(Trial(row="random search", config=candidate, info=dict(point)))
    return trials


def tpe_search(
    config: TrainConfig, seed: int, budget: float, outcomes: Outcomes, generation: int
) -> list[Trial]:
    """The same with strategies that Optuna's TPE proposes from the validation figures so far."""
    import optuna

    space = strategies_of(config)
    distributions = {n: optuna.distributions.CategoricalDistribution(values) for n, values in space.items()}
    size = math.prod(len(values) for values in space.values())
    trials: list[Trial] = []
    spent = 0.0
    while True:
        if any(trial.name not in outcomes for trial in trials):
            return trials
        told = [(t.info, _robust(outcomes[t.name])) for t in trials]
        points = propose(told, distributions, generation, [seed, len(trials)], startup=max(2, generation))
        for point in points:
            tries = 0
            while len(trials) < size and point in [
                trial.info for trial in trials
            ]:  # again would tell nothing new
                point, tries = draw(space, rng_of(seed, 5, len(trials), tries)), tries + 1
            candidate = with_strategy(config, point)
            spent += config.epochs * epoch_cost(candidate)
            if spent > budget * _ROUNDING or len(trials) == size:
                return trials
            trials.append(Trial(row="TPE", config=candidate, info=dict(point)))


def propose(
    told: Sequence[tuple[Mapping[str, Any], Sequence[float] | None]],
    distributions: Mapping[str, Any],
    count: int,
    seed: Sequence[int],
    *,
    directions: Sequence[Literal["maximize", "minimize"]] = ("maximize",),
    startup: int,
) -> list[Point]:
    """The next ``count`` points of Optuna's TPE, a function of what it was told and the seed.

    ``told``: (point, its values; None where it failed).
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's: some arguments are marked experimental
        sampler = optuna.samplers.TPESampler(
            seed=int(rng_of(*seed, 2).integers(2**31)), n_startup_trials=startup, constant_liar=True
        )
        study = optuna.create_study(directions=list(directions), sampler=sampler)
        for point, values in told:
            params = {name: point[name] for name in distributions}
            kind = optuna.trial.TrialState.FAIL if values is None else optuna.trial.TrialState.COMPLETE
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=dict(distributions), values=values, state=kind
                )
            )
        return [study.ask(dict(distributions)).params for _ in range(count)]


def population(
    config: TrainConfig, seed: int, budget: float, outcomes: Outcomes, members: int, interval: int
) -> list[Trial]:
    """Population-based training (Jaderberg et al. 2017), in step: after every ``interval`` epochs the
    worst quarter goes on from checkpoints of the best quarter, with strategies changed a little.

    A member's stretch between two such moments is a trial. Members that the budget cannot carry to
    the next moment end, worst first.
    """
    space = strategies_of(config)
    points = [draw(space, rng_of(seed, 3, member)) for member in range(members)]
    parents: list[str | None] = [None] * members
    alive, spent = list(range(members)), 0.0
    trials: dict[str, Trial] = {}
    moments = [*range(0, config.epochs, interval), config.epochs]
    for number, (start, end) in enumerate(pairwise(moments)):
        now: dict[int, str] = {}
        for member in alive:
            trial = Trial(
                row="PBT",
                config=with_strategy(config, points[member]),
                parent=parents[member],
                stop_epoch=end,
                info={**points[member], "member": member, "start_epoch": start},
            )
            if trial.name not in trials:  # twins train once
                spent += (end - start) * epoch_cost(trial.config)
                if spent > budget * _ROUNDING:
                    break
            trials.setdefault(trial.name, trial)
            now[member] = trial.name
        if not now or any(name not in outcomes for name in now.values()):
            break
        alive = sorted(now, key=lambda member: -_present(outcomes[now[member]]))
        alive = [member for member in alive if outcomes[now[member]].status != "failed"]
        if not alive:
            break
        parents = [now.get(member) for member in range(members)]
        _exploit(alive, points, parents, space, rng_of(seed, 4, number))
    return list(trials.values())


def _exploit(
    ranked: list[int],
    points: list[Point],
    parents: list[str | None],
    space: Mapping[str, tuple[float, ...]],
    rng: np.random.Generator,
) -> None:
    """The worst quarter takes over checkpoint and strategy of one of the best, and explores."""
    quarter = len(ranked) // 4 or int(len(ranked) > 1)
    for loser in ranked[len(ranked) - quarter :]:
        winner = ranked[int(rng.integers(quarter))]
        parents[loser] = parents[winner]
        points[loser] = {name: _explore(points[winner][name], space[name], rng) for name in FIELDS}


def _explore(value: float, values: tuple[float, ...], rng: np.random.Generator) -> float:
    """A neighbouring value, or with probability 1/4 any."""
    if rng.random() < _RESAMPLE:
        return float(values[rng.integers(len(values))])
    place = values.index(value) + (1 if rng.random() < 0.5 else -1)
    return float(values[min(max(place, 0), len(values) - 1)])


def epoch_cost(config: TrainConfig) -> float:
    """Passes of one image in one epoch of training; no data set is needed to compare two runs."""
    rounds = 1000 * config.update_interval  # so many that rounding does not matter
    return expected_passes(config, rounds, 1) / rounds / config.batch_size


def _robust(outcome: Outcome) -> list[float] | None:
    return [outcome.best[1]] if outcome.best and outcome.status != "failed" else None


def _present(outcome: Outcome) -> float:
    """Validation robustness now; a failed member is worst."""
    return outcome.curve[-1][2] if outcome.curve and outcome.status != "failed" else -1.0
