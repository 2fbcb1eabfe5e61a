"""What would another strategy have earned? Off-policy evaluation of a run's logged actions.

python -m lasat_ray.train --log-actions --out runs/logged
python -m examples.off_policy_evaluation runs/logged num_steps=1 eps=0.2 step_size=0.2

The log holds, image by image, what the policy saw, what it chose, with which probability, and what that
earned. The other policy takes the values that are named, or any value alike in fields that are not. Three
estimates of its mean reward in the same rounds (Dudik et al. 2011): IPS weighs each reward by the action's
probability under the other policy over that under the logged one; SNIPS divides by the sum of weights; DR
adds to a fitted reward what IPS finds in its errors.

Rewards are those before standardization (``raw_reward``). The target net learns meanwhile, and what one
policy made of it the log cannot undo: an estimate is about the rewards of these rounds, not about the net
at the end.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

FIELDS = ("eps", "num_steps", "step_size", "start_radius", "momentum", "trades_beta")
Log = dict[str, np.ndarray]


def ips(reward: np.ndarray, weight: np.ndarray) -> float:
    """Mean of weight * reward, both [N]; unbiased where the logged policy may take every action."""
    return float((weight * reward).mean())


def snips(reward: np.ndarray, weight: np.ndarray) -> float:
    """The same over the mean weight: biased a little, and less noisy."""
    return float((weight * reward).sum() / weight.sum())


def doubly_robust(reward: np.ndarray, weight: np.ndarray, fitted: np.ndarray, other: np.ndarray) -> float:
    """Right where the weights are or the fit is: ``fitted`` [N] rewards of the logged actions, ``other`` [N]
    of the other policy's."""
    return float((other + weight * (reward - fitted)).mean())


def weights(log: Log, fixed: dict[str, float]) -> np.ndarray:
    """[N]: probability of the logged action under the other policy over that under the logged one."""
    probability = np.ones(len(log["reward"]))
    for name in (name for name in FIELDS if name in log):
        chosen = np.isclose(log[name], fixed[name]) if name in fixed else 1 / len(np.unique(log[name]))
        probability = probability * chosen
    return probability / log["propensity"]


def features(log: Log, fixed: dict[str, float] | None) -> np.ndarray:
    """A column a class and a value of a field, [N,F]: of the logged actions, or (``fixed``) what they are on
    average under the other policy."""
    columns = [(log["label"] == label).astype(float) for label in np.unique(log["label"])]
    for name in (name for name in FIELDS if name in log):
        values = np.unique(log[name])
        for value in values:
            if fixed is None:
                columns.append(np.isclose(log[name], value).astype(float))
            else:
                share = float(np.isclose(fixed[name], value)) if name in fixed else 1 / len(values)
                columns.append(np.full(len(log["label"]), share))
    return np.stack(columns, 1)


def estimates(log: Log, fixed: dict[str, float]) -> dict[str, float]:
    """Mean reward as logged, and three estimates of it under the other policy."""
    reward, weight = log["raw_reward"], weights(log, fixed)
    if not weight.any():
        raise SystemExit(f"{fixed}: was never chosen; name values of the run's --attack.grid")
    taken = features(log, None)
    fit = np.linalg.lstsq(taken, reward, rcond=None)[0]
    found = {"logged": float(reward.mean()), "IPS": ips(reward, weight), "SNIPS": snips(reward, weight)}
    return found | {"DR": doubly_robust(reward, weight, taken @ fit, features(log, fixed) @ fit)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("values", nargs="*", metavar="FIELD=VALUE")
    args = parser.parse_args()
    table = pq.read_table(args.run / "actions")
    log = {name: table[name].to_numpy() for name in table.column_names if name != "context"}
    fixed = {name: float(value) for name, _, value in (word.partition("=") for word in args.values)}
    found = estimates(log, fixed)
    print(f"{table.num_rows} images, mean reward: ", end="")
    print(", ".join(f"{name} {value:.4f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
