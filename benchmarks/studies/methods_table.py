"""Every method with a fixed attack and with a learned strategy, on equal rounds and at equal passes: what the
tables of docs/methods.md are made of.

    python -m benchmarks.studies.methods_table --jobs 2
    python -m benchmarks.studies.methods_table --study digits-passes --jobs 2
    python -m benchmarks.studies.methods_table --study cifar10 --dataset parquet:PATH --jobs 2

Seed after seed; the record is written after each, so the command can be killed and repeated. All
methods share one setting, the recipe's with what COMMON says: no method is tuned by itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from benchmarks.common import RECORDS, made_by, read_record, write_record
from benchmarks.studies.outcomes import Outcome, by_label, mean_std, percent, slim, without_place
from benchmarks.studies.study import Judge, RunOptions, Trial, seed_after_seed
from benchmarks.tables.marked import markdown

AVERAGED = ("--optim.ema-decay", "0.99")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table; ``flags`` beyond --method, ``source``: the row whose fixed run (same seed)
    is given by the option ``source_flag``."""

    method: str
    flags: tuple[str, ...] = ()
    source: str | None = None
    source_flag: str = "--teacher"
    strategies: tuple[str, ...] = ("fixed", "learned")


def _steps(count: int, size: float) -> tuple[str, ...]:
    """The fixed attack of a cheap method; a learned strategy has its grid."""
    return ("--attack.num-steps", str(count), "--attack.step-size", str(size))


ROWS: dict[str, Row] = {
    "clean": Row(method="clean", strategies=("fixed",)),
    **{name: Row(method=name) for name in ("pgd-at", "trades", "mart", "fat", "fat-trades", "fat-mart")},
    **{name: Row(method=name) for name in ("gairat", "at-awp", "trades-awp", "lbgat", "dart", "sat", "cat")},
    "gowal": Row(method="gowal", flags=AVERAGED),
    "rebuffi": Row(method="rebuffi", flags=(*AVERAGED, "--data.cutmix")),
    "score": Row(method="score"),
    "hat": Row(method="hat", source="clean"),
    "ltd": Row(method="ltd", source="clean"),
    **{name: Row(method=name) for name in ("ikl", "adr", "adr-trades", "te")},
    "kd-swa": Row(
        method="kd-swa",
        flags=("--robust-teacher", "@pgd-at-fixed", "--optim.swa-start", "22"),
        source="clean",
    ),
    # Eight replays; its strategies have no steps to choose.
    "free": Row(method="free", flags=_steps(8, 0.2), strategies=("fixed",)),
    "atas-steps": Row(method="atas-steps", flags=_steps(1, 0.4)),
    "hydra": Row(method="hydra", source="pgd-at", source_flag="--init-from"),
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """One table: settings that all its runs share, its rows and seeds, and how nets are judged."""

    flags: tuple[str, ...]
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    judge: Judge
    record: str
    told: str

    def row_names(self) -> list[str]:
        """Label of every line of the table."""
        return [f"{row}-{strategy}" for row in self.rows for strategy in ROWS[row].strategies]


STUDIES = {
    "digits": Study(
        flags=(
            *("--recipe", "digits", "--learner", "reinforce", "--model", "mlp", "--strategy-model", "mlp"),
            *("--epochs", "20", "--evaluation.every", "4", "--evaluation.test-num-steps", "10"),
        ),
        rows=tuple(row for row in ROWS if row != "kd-swa"),
        seeds=(0, 1, 2, 3, 4),
        judge=Judge(n_autoattack=100),
        record="methods_digits",
        told="8x8 digits, L-inf 0.2, an MLP of {parameters:,} parameters, {rounds} rounds of 128 images each",
    ),
    "digits-passes": Study(
        flags=(
            *("--recipe", "digits-rate", "--model", "mlp", "--strategy-model", "mlp"),
            *("--budget", "350passes", "--evaluation.test-num-steps", "10"),
        ),
        rows=tuple(ROWS),
        seeds=(0, 1, 2, 3, 4),
        judge=Judge(n_autoattack=100),
        record="methods_digits_passes",
        told=(
            "8x8 digits, L-inf 0.2, an MLP of {parameters:,} parameters, 350 passes of both nets for each "
            "training image; learned: paid by the pass"
        ),
    ),
    "cifar10": Study(
        flags=(
            *("--recipe", "cifar10-cpu", "--model", "tiny_cnn_bn", "--strategy-model", "tiny_cnn"),
            *("--epochs", "12", "--evaluation.test-num-steps", "10"),
        ),
        rows=("pgd-at", "trades", "mart", "at-awp"),
        seeds=(0, 1, 2),
        judge=Judge(n_examples=250, n_autoattack=100),
        record="methods_cifar10",
        told=(
            "CIFAR-10 re-encoded as JPEG (not comparable with published numbers), L-inf 8/255, {n_train:,} "
            "training images, a CNN of {parameters:,} parameters, {rounds} rounds of 64 images each"
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """What to run."""

    study: str = "digits"
    """digits, digits-passes or cifar10."""
    dataset: str | None = None
    """As for lasat_ray.train, for example parquet:PATH; None takes the recipe's."""
    seeds: tuple[int, ...] = ()
    """Other seeds than the study's."""
    out: Path = Path("runs/methods")
    """Folder of the runs; each study has one of its own in it."""


def trials(study: Study, seed: int, dataset: str | None) -> list[Trial]:
    """Every run of one seed; rows that learn from another row's net name it."""
    shared = (*study.flags, *(("--dataset", dataset) if dataset else ()))
    found = []
    for label in study.rows:
        row = ROWS[label]
        for strategy in row.strategies:
            flags = (*shared, "--method", row.method, "--strategy", strategy, *row.flags)
            source = f"{row.source}-fixed" if row.source else None
            name = f"{label}-{strategy}"
            found.append(
                Trial(label=name, flags=flags, seed=seed, teacher=source, teacher_flag=row.source_flag)
            )
    return found


def kept(outcome: Outcome) -> Outcome:
    """What the record holds of a run."""
    run = slim(outcome)
    run["trial"] = {name: run["trial"][name] for name in ("label", "seed", "teacher")}
    run.pop("epochs", None)
    return run


def table(study: Study, runs: Sequence[Outcome]) -> str:
    """Markdown: a line per row and strategy, mean and standard deviation over seeds in percent."""
    rows = by_label(runs)
    missing = [label for label in study.row_names() if len(rows.get(label, [])) < len(study.seeds)]
    lines: list[list[object]] = []
    for label, strategy in ((row, strategy) for row in study.rows for strategy in ROWS[row].strategies):
        if found := rows.get(f"{label}-{strategy}"):
            figures = [mean_std(percent(found, attack)) for attack in ("clean", "pgd-50", "aa")]
            cost = statistics.mean(run["passes_per_image"] for run in found)
            lines.append([label, strategy, *figures, f"{cost:.1f}", len(found)])
    few = (
        f" Not finished: {len(missing)} of {len(study.row_names())} lines have fewer than {len(study.seeds)}"
    )
    told = f"{few} seeds; lines without a run are left out." if missing else ""
    heads = ["method", "strategy", "clean", "PGD-50", "AA", "cost", "seeds"]
    return markdown(heads, lines, caption(study, runs) + told)


def caption(study: Study, runs: Sequence[Outcome]) -> str:
    summary, judged = runs[0]["summary"], runs[0]["evaluation"]
    told = study.told.format(**summary)
    n, dear = judged["pgd-50"]["n"], judged["aa"]["n"]
    return (
        f"Measured on {told}; the best epoch on validation, {n} test images (AA: the first {dear}). Mean ± "
        "standard deviation over seeds in %. Cost: forward passes of the target net per training image, "
        "counted; the net that hat, ltd and hydra start from is not in it."
    )


def tables() -> dict[str, str]:
    """Mark -> table of each study."""
    return {name: table(study, read_record(study.record)["runs"]) for name, study in STUDIES.items()}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    study = STUDIES[options.study]
    more = ["--study", options.study]
    if options.dataset:
        more += ["--dataset", without_place(options.dataset)]
    seeds = [trials(study, seed, options.dataset) for seed in options.seeds or study.seeds]
    own = replace(options, out=options.out / options.study)
    for outcomes in seed_after_seed(seeds, study.judge, own, RECORDS / f"{study.record}.json"):
        made = made_by("benchmarks.studies.methods_table", *more)
        write_record(study.record, {**made, "flags": study.flags, "runs": list(map(kept, outcomes))})


if __name__ == "__main__":
    main()
