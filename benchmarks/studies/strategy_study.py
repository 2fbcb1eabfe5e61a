"""Does a learned strategy pay? Credits, their weights and learners against constant and random strategies.

    python -m benchmarks.studies.strategy_study --jobs 2
    python -m benchmarks.studies.strategy_study --study cifar10 --dataset parquet:PATH --jobs 2

Constant strategies of several budgets draw the clean-robust front that anything learned has to beat;
each credit is swept over the weight of L1 and over alpha : beta, so that it is judged at its best, and
each learner is run with each credit. Seed after seed; the record is written after each, so the
command can be killed and repeated.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.common import RECORDS, made_by, read_record, write_record
from benchmarks.studies.outcomes import Outcome, by_label, mean_std, paired, percent, slim
from benchmarks.studies.study import Judge, RunOptions, Trial, seed_after_seed
from benchmarks.tables.marked import markdown

Rows = dict[str, tuple[str, ...]]
"""Label of a row -> its flags."""

LEARNED = ("--policy.optimizer", "adam", "--policy.lr", "1e-3", "--policy.entropy-weight", "0.01")
RECIPE = (
    *("--recipe", "digits", "--evaluation.every", "5"),
    # What the digits recipe was when this was asked, told in full so that the rows stay what they are.
    *("-k", "4", "--epochs", "20", "--model", "small_cnn", "--strategy-model", "small_cnn"),
    *("--learner", "reinforce", "--policy.optimizer", "adam", "--policy.lr", "1e-4"),
    *("--policy.entropy-weight", "0.01", "--reward.credit", "influence", "--reward.l1-weight", "0.3"),
    "--reward.standardize",
)
LEARNERS = ("a2c", "ppo", "mirror-descent", "thompson")
"""Beside REINFORCE, with the weight of L1 that BEST names."""
BEST = {"influence": 0.2, "image": 0.0, "batch": 0.0}
TITLES = {"pgd-50": "PGD-50", "aa": "AA"}


def constants(*budgets: float) -> Rows:
    """Fixed strategies that differ in eps alone."""
    return {f"constant eps={eps:g}": ("--strategy", "fixed", "--attack.eps", str(eps)) for eps in budgets}


def credit_flags(credit: str, l1_weight: float, learner: str = "reinforce") -> tuple[str, ...]:
    """A credit with its weight of L1, on standardized terms where it allows that."""
    flags: tuple[str, ...] = (
        "--learner",
        learner,
        "--reward.credit",
        credit,
        "--reward.l1-weight",
        str(l1_weight),
    )
    if learner != "thompson":  # it has no net
        flags = (*LEARNED, *flags)
    batch = credit == "batch"  # the same for all images, so only earlier rounds tell good from bad
    if learner == "reinforce":
        flags += ("--policy.baseline", "running" if batch else "mean")
    return (*flags, "--reward.no-standardize" if batch else "--reward.standardize")


def digits_rows() -> Rows:
    """Each credit along the weight of L1 and along alpha : beta, and with every learner."""
    found = {**constants(0.1, 0.15, 0.2, 0.25, 0.3), "random": ("--strategy", "random")}
    for eps in (0.2, 0.25):  # the step that influence comes to prefer
        wide = ("--strategy", "fixed", "--attack.eps", str(eps), "--attack.step-size", "0.1")
        found[f"constant eps={eps} step=0.1"] = wide
    swept = {"influence": (0.0, 0.1, 0.2, 0.3, 1.0), "image": (0.0, 0.3, 1.0), "batch": (0.0, 0.3, 1.0)}
    for credit, weights in swept.items():
        found |= {f"{credit} l1={w:g}": credit_flags(credit, w) for w in weights}
        best = BEST[credit]
        for alpha, beta in ((1, 0), (0, 1)):
            ratio = ("--reward.alpha", str(alpha), "--reward.beta", str(beta))
            found[f"{credit} l1={best:g} {alpha}:{beta}"] = (*credit_flags(credit, best), *ratio)
        found |= {f"{credit} {name}": credit_flags(credit, best, name) for name in LEARNERS}
    return found


def cifar10_rows() -> Rows:
    """The three credits at the weights that served the digits best, and PGD-AT."""
    eps = {f"constant eps={n}/255": ("--strategy", "fixed", "--attack.eps", f"{n}/255") for n in (8, 10)}
    credits = {f"{credit} l1={w:g}": credit_flags(credit, w) for credit, w in BEST.items()}
    return {**eps, "random": ("--strategy", "random"), **credits}


def recipe_rows() -> Rows:
    """``RECIPE`` as it is, and with one setting changed; and its PGD-AT for as many passes as PPO costs."""
    plain = {"constant eps=0.2": ("--strategy", "fixed"), "random": ("--strategy", "random")}
    weights = {f"influence l1={w:g}": ("--reward.l1-weight", str(w)) for w in (0.0, 0.1, 0.2, 0.3)}
    batch = ("--reward.credit", "batch", "--reward.no-standardize")
    return {
        **plain,
        **weights,
        **{f"influence {name}": ("--learner", name) for name in ("a2c", "ppo")},
        "image l1=0.3": ("--reward.credit", "image"),
        "batch l1=0.3": (*batch, "--policy.baseline", "running"),
        **constants(0.225, 0.25),
        "constant eps=0.2, 29 epochs": ("--strategy", "fixed", "--epochs", "29"),
        "image ppo": ("--learner", "ppo", "--reward.credit", "image"),
        "batch ppo": ("--learner", "ppo", *batch),
        "influence lr=1e-3": ("--policy.lr", "1e-3"),
    }


def confirmation_rows() -> Rows:
    """PPO, which stood out among ``recipe_rows``, and its rivals, for seeds not yet used."""
    rivals = ("constant eps=0.2", "constant eps=0.225", "constant eps=0.2, 29 epochs")
    learned = ("influence l1=0.3", "influence ppo", "influence lr=1e-3")
    every = recipe_rows()
    return {name: every[name] for name in (*rivals, *learned)}


@dataclass(frozen=True, kw_only=True)
class Study:
    """One table: what all its runs share, its rows, the row that differences are against."""

    flags: tuple[str, ...]
    rows: Callable[[], Rows]
    plain: str
    seeds: range
    judge: Judge
    told: str

    def trials(self, seed: int, dataset: str | None) -> list[Trial]:
        flags = (*self.flags, *(("--dataset", dataset) if dataset else ()))
        return [Trial(label=name, flags=(*flags, *own), seed=seed) for name, own in self.rows().items()]


STUDIES = {
    "digits": Study(
        flags=(
            *("--recipe", "digits", "--model", "tiny_cnn_bn", "--strategy-model", "tiny_cnn"),
            *("-k", "2", "--epochs", "15", "--evaluation.every", "5"),
        ),
        rows=digits_rows,
        plain="constant eps=0.2",
        seeds=range(10),
        judge=Judge(n_autoattack=100),
        told="8x8 digits, L-inf 0.2, k = 2",
    ),
    "recipe": Study(
        flags=RECIPE,
        rows=recipe_rows,
        plain="constant eps=0.2",
        seeds=range(10),
        judge=Judge(n_autoattack=100),
        told="8x8 digits, L-inf 0.2, k = 4, the recipe `digits`",
    ),
    "confirmation": Study(
        flags=RECIPE,
        rows=confirmation_rows,
        plain="constant eps=0.2",
        seeds=range(10, 20),
        judge=Judge(n_autoattack=100),
        told="The same with seeds 10 to 19",
    ),
    "cifar10": Study(
        flags=(
            *("--recipe", "cifar10-cpu", "--model", "tiny_cnn_bn", "--strategy-model", "tiny_cnn"),
            *("--epochs", "12", "--evaluation.test-num-steps", "10"),
        ),
        rows=cifar10_rows,
        plain="constant eps=8/255",
        seeds=range(3),
        judge=Judge(n_examples=250, n_autoattack=100),
        told="CIFAR-10 re-encoded as JPEG (not comparable with published numbers), L-inf 8/255, k = 4",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """What to run."""

    study: Literal["digits", "recipe", "confirmation", "cifar10"] = "digits"
    """Which table."""
    dataset: str | None = None
    """As for lasat_ray.train, for example parquet:PATH; None takes the recipe's."""
    out: Path = Path("runs/strategy-study")
    """Folder of the runs; each study has one of its own in it."""
    seeds: int | None = None
    """The study's first so many; None takes all."""


def chosen(runs: Sequence[Outcome], grid: dict[str, list[float]], field: str) -> str:
    """Mean of a field over the last epoch's strategies, over seeds; nothing for constants."""
    means = []
    for run in runs:
        counts = run["epochs"][-1]["options"][field]
        if len(counts) == 1:
            return ""
        means.append(sum(n * v for n, v in zip(counts, grid[field], strict=True)) / sum(counts))
    return f"{statistics.mean(means):.1f}" if field == "num_steps" else f"{statistics.mean(means):.3f}"


def against(ours: Sequence[Outcome], plain: Sequence[Outcome], attack: str) -> str:
    """Paired difference with its interval, in percentage points."""
    gap = paired(ours, plain, attack)
    told = f"{gap['difference']:+.1f}"
    return f"{told} [{gap['low']:+.1f}, {gap['high']:+.1f}]" if gap["n"] > 1 else told


def table(record: dict[str, Any]) -> str:
    """Markdown: a line a row, percent over seeds, differences to plain PGD-AT, what was chosen."""
    found, grid, plain = by_label(record["runs"]), record["grid"], record["plain"]
    judged = record["runs"][0]["evaluation"]
    attacks = [attack for attack in TITLES if attack in judged]
    heads = ["strategy", "clean", *(TITLES[a] for a in attacks)]
    heads += [f"{TITLES[a]} against PGD-AT" for a in attacks] + ["cost", "eps", "steps", "step size", "seeds"]
    lines = []
    for label in (name for name in record["rows"] if name in found):
        row = found[label]
        cells = [
            label,
            *(mean_std(percent(row, attack)) for attack in ("clean", *attacks)),
            *("" if label == plain else against(row, found[plain], a) for a in attacks),
            f"{statistics.mean(run['passes_per_image'] for run in row):.1f}",
            *(chosen(row, grid, field) for field in ("eps", "num_steps", "step_size")),
            str(len(row)),
        ]
        lines.append(cells)
    summary = record["runs"][0]["summary"]
    rounds = {label: found[label][0]["summary"]["rounds"] for label in found}
    longer = "".join(f" ({label}: {n})" for label, n in rounds.items() if n != summary["rounds"])
    first = f" (AA: the first {judged['aa']['n']})" if "aa" in judged else ""
    told = [
        f"{record['told']}, {summary['rounds']} rounds{longer}",
        f"a net of {summary['parameters']:,} parameters; {judged['clean']['n']} test images{first}",
        "the best epoch on validation. Mean ± standard deviation in %; paired differences over seeds in "
        "percentage points with 95 % intervals (Student's t). Cost: forward passes an image, counted. eps, "
        "steps, step size: what was chosen in the last epoch, on average.",
    ]
    return markdown(heads, lines, ", ".join(told))


def make_record(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What the table needs, and what it was made with."""
    from lasat_ray.cli.run_options import parse_train

    study, runs = STUDIES[name], [slim(outcome) for outcome in outcomes]
    for run in runs:
        run["trial"] = {key: run["trial"][key] for key in ("label", "seed")}
        run["epochs"] = run["epochs"][-1:]
    config, _ = parse_train([*study.flags, "--strategy", "learned"])
    return {
        **made_by("benchmarks.studies.strategy_study", "--study", name),
        **{"told": study.told, "plain": study.plain, "flags": study.flags, "rows": study.rows()},
        "grid": {field: list(values) for field, values in config.attack.grid.items()},
        "runs": runs,
    }


def tables() -> dict[str, str]:
    """Mark -> table of each study."""
    return {f"front {name}": table(read_record(f"strategy_front_{name}")) for name in STUDIES}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    name, study = f"strategy_front_{options.study}", STUDIES[options.study]
    seeds = [study.trials(seed, options.dataset) for seed in study.seeds[: options.seeds]]
    own = replace(options, out=options.out / options.study)
    for outcomes in seed_after_seed(seeds, study.judge, own, RECORDS / f"{name}.json"):
        write_record(name, make_record(options.study, outcomes))


if __name__ == "__main__":
    main()
