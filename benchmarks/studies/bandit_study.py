"""Do the learners learn? Planted bandits whose best strategies are known; regret of every learner.

python -m benchmarks.studies.bandit_study --out runs/bandit  # goes on where it stopped, writes the record

Images are 8x8 noise with the left or the right half bright: two families. A strategy is a point of
the digits recipe's grid (6 x 12 x 5 options), each field scaled to [0,1]; its reward falls with the
mean squared distance from what its family needs, plus noise of deviation 0.3. No attack is run.

families: what one family needs is the opposite corner for the other, (1,0,1) and (0,1,0).
swap:     the same, but half way through the run the families exchange their needs.
constant: both need (0.8,0.2,0.5), so that nothing is gained by looking at the image.
"""

from __future__ import annotations

import json
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.common import ROOT, read_record, write_record
from benchmarks.tables.marked import markdown
from lasat_ray.config import PolicyConfig, TrainConfig
from lasat_ray.learners import LearnerContext, make_learner
from lasat_ray.process_group import ProcessGroup
from lasat_ray.recipes.digits import GRID
from lasat_ray.rng import RandomKey
from lasat_ray.runs.folder import provenance
from lasat_ray.strategy import StrategySpace
from lasat_ray.types import Rollout

RECORD = "bandit_study_cpu"
FIGURE = ROOT / "docs" / "figures" / "bandit_study.png"
ROUNDS, IMAGES, NOISE, SEEDS = 60, 64, 0.3, 10
CASES = ("families", "swap", "constant")
NEEDS = {"families": ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0)), "constant": ((0.8, 0.2, 0.5),) * 2}
NEEDS["swap"] = NEEDS["families"]
_NET = {"optimizer": "adam", "lr": 1e-3, "grad_clip": 0.0}
_FLOOR = {**_NET, "min_exploration": 0.05}
_FEW = {"update_epochs": 2, "minibatches": 2, "normalize_advantage": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "random": {},
    "reinforce": _FLOOR,
    "reinforce, value": {**_FLOOR, "baseline": "value"},
    "reinforce, greedy": {**_FLOOR, "baseline": "greedy"},
    "a2c": _FLOOR,
    "ppo": {**_FLOOR, **_FEW},
    "mirror-descent": {**_FLOOR, **_FEW, "mirror_step": 0.1},
    "ucb": {"exploration": 0.3},
    "thompson": {"exploration": 0.3},
    "exp3": {"min_exploration": 0.05},
    "sb3:A2C": _NET,
    "sb3:PPO": {**_NET, **_FEW},
}
"""Learner -> its settings, chosen beforehand: one learning rate for all nets, nothing tuned."""

STATED_MARGIN = 0.1  # the best constant's regret minus a contextual learner's, at the end of ``families``


def places() -> list[Tensor]:
    """Each option's place in [0,1], [V_k] a field."""
    return [torch.linspace(0, 1, len(values)) for values in GRID.values()]


def losses(case: str) -> Tensor:
    """Mean squared distance from what each family needs, of every joint strategy; [2, V_1, V_2, V_3]."""
    parts = torch.meshgrid(*places(), indexing="ij")
    needs = torch.tensor(NEEDS[case]).view(2, 3, 1, 1, 1)
    return (torch.stack(parts) - needs).square().mean(1)


def best_constant_regret(case: str) -> float:
    """What the best single strategy gives away an image, in hindsight and knowing the families."""
    loss = losses(case)
    return float(loss.mean(0).amin() - loss.flatten(1).amin(1).mean())


class PlantedBandit:
    """One planted bandit; every draw is named by (seed, round)."""

    def __init__(self, case: str, seed: int):
        self.case, self.seed, self.loss = case, seed, losses(case)
        self.index = torch.arange(IMAGES)

    def images(self, round: int) -> tuple[Tensor, Tensor]:
        """x [B,1,8,8] and the family [B]."""
        key = RandomKey.of(self.seed, "study images", round)
        family = key.integers(self.index, (), 2)
        x = 0.5 * key.fold_in("pixels").uniform(self.index, (1, 8, 8), torch.float32)
        bright = torch.stack([1 - family, family], 1).repeat_interleave(4, 1).view(-1, 1, 1, 8)
        return x + 0.5 * bright, family

    def regret(self, family: Tensor, action: Tensor, round: int) -> Tensor:
        """How much more the best strategy for each image would have earned, [B]."""
        swapped = self.case == "swap" and round >= ROUNDS // 2
        needs = 1 - family if swapped else family
        taken = self.loss[needs, action[:, 0], action[:, 1], action[:, 2]]
        return taken - self.loss.flatten(1).amin(1)[needs]

    def rewards(self, family: Tensor, action: Tensor, round: int, what: str) -> Tensor:
        noise = RandomKey.of(self.seed, "study noise", round, what).normal(self.index, (), torch.float32)
        return 1 - self.regret(family, action, round) + NOISE * noise


def play(learner_name: str, case: str, seed: int) -> list[float]:
    """Mean regret an image of each round."""
    kind, _, baseline = learner_name.partition(", ")
    config = TrainConfig(
        learner=kind,
        strategy="random" if kind == "random" else "learned",
        strategy_model="examples.own_model:mlp",
        batch_size=IMAGES,
        seed=seed,
        policy=PolicyConfig(**SETTINGS[learner_name]),
    )
    space = StrategySpace.of(GRID, device="cpu", dtype=torch.float32)
    torch.manual_seed(RandomKey.of(seed, "study init").low)
    learner: Any = make_learner(
        LearnerContext(
            space=space,
            image_shape=(1, 8, 8),
            config=config,
            group=ProcessGroup(),
            device=torch.device("cpu"),
            total_rounds=ROUNDS,
        )
    )
    game, curve = PlantedBandit(case, seed), []
    for round in range(ROUNDS):
        x, family = game.images(round)
        action = learner.act(x, game.index, RandomKey.of(seed, "study action", round))
        curve.append(float(game.regret(family, action.index, round).mean()))
        greedy = None
        if baseline == "greedy":
            greedy = game.rewards(family, learner.greedy(x).index, round, "greedy")
        reward = game.rewards(family, action.index, round, "reward")
        learner.update(
            Rollout(
                x=x,
                action=action.index,
                log_prob=action.log_prob,
                reward=reward,
                global_size=IMAGES,
                greedy_reward=greedy,
            )
        )
    return curve


Curves = dict[tuple[str, str, int], list[float]]
"""(learner, case, seed) -> regret of each round."""


def run(out: Path, learners: list[str], finished_only: bool = False) -> Curves:
    """Every run that ``out`` does not hold yet, seed after seed; or what it holds."""
    out.mkdir(parents=True, exist_ok=True)
    path, done = out / "runs.jsonl", {}
    for line in path.read_text().splitlines() if path.exists() else []:
        entry = json.loads(line)
        done[tuple(entry["key"])] = entry["curve"]
    for seed in range(0 if finished_only else SEEDS):
        for case in CASES:
            for learner in learners:
                key = (learner, case, seed)
                if key in done:
                    continue
                done[key] = play(*key)
                with open(path, "a") as file:
                    file.write(json.dumps({"key": key, "curve": [round(r, 5) for r in done[key]]}) + "\n")
        print(f"seed {seed} done", flush=True)
    return done


def make_record(done: Curves, learners: list[str]) -> dict[str, Any]:
    """What is committed: settings, regrets of every seed, mean curves, where it was measured."""
    seeds = {
        case: [n for n in range(SEEDS) if all((name, case, n) in done for name in learners)] for case in CASES
    }
    given = [] if learners == list(SETTINGS) else ["--learners", *(f"'{name}'" for name in learners)]
    results: dict[str, Any] = {}
    for learner in learners:
        cases = {}
        for case in CASES:
            curves = torch.tensor([done[learner, case, seed] for seed in seeds[case]])
            cases[case] = {
                "mean_regret": [round(r, 5) for r in curves.mean(1).tolist()],
                "last_tenth": [round(r, 5) for r in curves[:, -ROUNDS // 10 :].mean(1).tolist()],
                "curve": [round(r, 4) for r in curves.mean(0).tolist()],
            }
        results[learner] = {"settings": SETTINGS[learner], "cases": cases}
    return {
        "command": " ".join(["python -m benchmarks.studies.bandit_study --out runs/bandit", *given]),
        "commit": provenance()["commit"],
        "torch": torch.__version__,
        "machine": platform.machine(),
        "rounds": ROUNDS,
        "images_a_round": IMAGES,
        "noise": NOISE,
        "seeds": seeds,
        "best_constant_regret": {case: round(best_constant_regret(case), 5) for case in CASES},
        "learners": results,
    }


def table(record: dict[str, Any]) -> str:
    """Mean regret over the whole run and over its last tenth, with standard deviations over seeds."""
    heads = [head for case in CASES for head in (f"{case}: whole run", "end")]
    rows = [
        [
            "best constant strategy",
            *(f"{record['best_constant_regret'][c]:.3f}" for c in CASES for _ in (0, 1)),
        ]
    ]
    for learner, result in record["learners"].items():
        parts = [result["cases"][case][part] for case in CASES for part in ("mean_regret", "last_tenth")]
        cells = [f"{statistics.mean(part):.3f} ± {statistics.stdev(part):.3f}" for part in parts]
        rows.append([f"`{learner}`", *cells])
    counts = ", ".join(f"{len(seeds)} ({case})" for case, seeds in record["seeds"].items())
    caption = (
        f"Regret an image: what the best strategy for it would have earned more, of at most 1. "
        f"{record['rounds']} rounds of {record['images_a_round']} images, {counts} seeds, mean ± "
        "standard deviation; end: the last tenth of the rounds. Nothing is tuned: nets learn with Adam at "
        f"{_NET['lr']:g}. `{record['command']}`, torch {record['torch']}; "
        f"`benchmarks/records/{RECORD}.json` has every seed and setting."
    )
    return markdown(["learner", *heads], rows, caption)


def read() -> dict[str, Any]:
    """The committed record."""
    return read_record(RECORD)


def tables() -> dict[str, str]:
    """Mark -> table."""
    return {"bandit": table(read())}


def draw(record: dict[str, Any]) -> None:
    """Cumulative regret curves, one panel a case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(CASES), figsize=(14, 4.5))
    for axis, case in zip(axes, CASES, strict=True):
        for n, (learner, result) in enumerate(record["learners"].items()):
            curve = torch.tensor(result["cases"][case]["curve"]).cumsum(0)
            axis.plot(curve, label=learner, color=f"C{n % 10}", linestyle="-" if n < 10 else "--")
        slope = record["best_constant_regret"][case]
        axis.plot([0, ROUNDS], [0, slope * ROUNDS], "k:", label="best constant")
        axis.set(title=case, xlabel="round", ylabel="cumulative regret an image")
    axes[-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(FIGURE, dpi=90)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to play."""

    out: Path = Path("runs/bandit")
    """Finished runs are kept here."""
    learners: tuple[str, ...] = tuple(SETTINGS)
    """Of the names in SETTINGS."""
    finished_only: bool = False
    """Record what is finished by now."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    learners = list(options.learners)
    write_record(RECORD, make_record(run(options.out, learners, options.finished_only), learners))


if __name__ == "__main__":
    main()
