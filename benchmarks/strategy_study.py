"""Does a learned strategy pay? Credits and their weights against constant and random strategies.

    python benchmarks/strategy_study.py --out runs/strategy-study
    python benchmarks/strategy_study.py --render      # only tables and picture from the record

Constant strategies of several budgets draw the clean-robust front that anything learned has to beat;
each credit is swept over the weight of L1 so that it is judged at its best. Seed after seed; the
record is written after each, so the command can be killed and repeated.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from marked import put_blocks
from study import Judge, Outcome, StudyOptions, Trial, by_label, mean_std, outcomes_of, paired, percent, slim

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benchmarks" / "records" / "strategy_front_digits.json"
DOC = ROOT / "docs" / "strategy_learning.md"
FIGURE = ROOT / "docs" / "figures" / "strategy_front.png"
Rows = dict[str, tuple[str, ...]]
"""Label of a row -> its flags."""

DIGITS = (
    *("--recipe", "digits", "--model", "tiny_cnn_bn", "--strategy-model", "tiny_cnn"),
    *("--epochs", "15", "--evaluation.every", "5"),
)
LEARNED = ("-k", "2", "--policy.optimizer", "adam", "--policy.lr", "1e-3", "--policy.entropy-weight", "0.01")
GRID = {
    "eps": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    "num_steps": tuple(range(3, 15)),
    "step_size": (0.02, 0.04, 0.06, 0.08, 0.1),
}
"""The recipe's grid, to say what was chosen."""
PLAIN = "constant eps=0.2"
"""PGD-AT as the recipe has it; differences are against this row."""


def controls() -> Rows:
    """What a learned strategy has to beat: constants of several budgets, and chance."""
    fixed = {
        f"constant eps={eps}": ("--strategy", "fixed", "--attack.eps", str(eps))
        for eps in (0.1, 0.15, 0.2, 0.25, 0.3)
    }
    return {**fixed, "random": ("--strategy", "random")}


def credit_flags(credit: str, l1_weight: float) -> tuple[str, ...]:
    """A credit with its weight of L1, each on standardized terms where it allows that."""
    flags = (*LEARNED, "--reward.credit", credit, "--reward.l1-weight", str(l1_weight))
    if credit == "batch":
        return (*flags, "--reward.no-standardize", "--policy.baseline", "running")
    return (*flags, "--reward.standardize", "--policy.baseline", "mean")


def rows() -> Rows:
    """Each credit along the weight of L1, and influence along alpha : beta."""
    found = controls()
    for credit, weights in {
        "influence": (0.0, 0.1, 0.2, 0.3, 1.0),
        "image": (0.0, 0.3, 1.0),
        "batch": (1.0,),
    }.items():
        found |= {f"{credit} l1={w:g}": credit_flags(credit, w) for w in weights}
    for alpha, beta in ((1, 0), (0, 1)):
        weights = ("--reward.alpha", str(alpha), "--reward.beta", str(beta))
        found[f"influence l1=0.2 {alpha}:{beta}"] = (*credit_flags("influence", 0.2), *weights)
    for eps in (0.2, 0.25):  # the step that influence comes to prefer
        wide = ("--strategy", "fixed", "--attack.eps", str(eps), "--attack.step-size", "0.1")
        found[f"constant eps={eps} step=0.1"] = wide
    return found


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """What to run."""

    out: Path = Path("runs/strategy-study")
    """Folder of the runs."""
    seeds: int = 5
    """Seeds 0 to this."""


def trials(seed: int) -> list[Trial]:
    return [Trial(label=label, flags=(*DIGITS, *flags), seed=seed) for label, flags in rows().items()]


def chosen(runs: Sequence[Outcome], field: str) -> str:
    """Mean of a field over the last epoch's strategies, over seeds; constants by their label."""
    means = []
    for run in runs:
        counts = run["epochs"][-1]["options"][field]
        if len(counts) == 1:
            return ""
        pairs = zip(counts, GRID[field], strict=True)
        means.append(sum(n * value for n, value in pairs) / sum(counts))
    return f"{statistics.mean(means):.2f}" if field != "num_steps" else f"{statistics.mean(means):.1f}"


def table(runs: Sequence[Outcome]) -> str:
    """Markdown: a line a row, percent over seeds, difference to plain PGD-AT, what was chosen."""
    found = by_label(runs)
    lines = [
        "| strategy | clean | PGD-50 | PGD-50 against PGD-AT | cost | eps | steps | step size | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for label in (name for name in rows() if name in found):
        row = found[label]
        gap = paired(row, found[PLAIN], "pgd-50")
        against = "" if label == PLAIN else f"{gap['difference']:+.1f}"
        if gap["n"] > 1 and against:
            against += f" [{gap['low']:+.1f}, {gap['high']:+.1f}]"
        cells = [
            label,
            *(mean_std(percent(row, attack)) for attack in ("clean", "pgd-50")),
            against,
            f"{statistics.mean(run['passes_per_image'] for run in row):.1f}",
            *(chosen(row, field) for field in GRID),
            str(len(row)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(runs: Sequence[Outcome]) -> None:
    """The clean-robust plane: constants joined to a front, each credit a colour."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = by_label(runs)
    figure, axes = pyplot.subplots(figsize=(7.5, 5.2), layout="constrained")
    colours = {"constant": "0.35", "random": "tab:brown"}
    colours |= {"influence": "tab:blue", "image": "tab:red", "batch": "tab:green"}
    for kind, colour in colours.items():
        labels = [label for label in rows() if label.split()[0] == kind and label in found]
        points = [
            [statistics.mean(percent(found[label], a)) for a in ("clean", "pgd-50")] for label in labels
        ]
        marker = "s--" if kind == "constant" else "o"
        line = sorted(points) if kind == "constant" else points
        axes.plot([p[0] for p in line], [p[1] for p in line], marker, color=colour, label=kind)
        for label, (x, y) in zip(labels, points, strict=True):
            short = label.removeprefix(kind).strip() or kind
            axes.annotate(short, (x, y), (4, 4), textcoords="offset points", fontsize=7, color=colour)
    axes.set(xlabel="clean accuracy, %", ylabel="accuracy under PGD-50, eps 0.2, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(FIGURE, dpi=130)
    pyplot.close(figure)


def write_record(outcomes: Sequence[Outcome]) -> None:
    from lasat_ray.folder import provenance  # loads torch, which --check does without

    runs = [slim(outcome) for outcome in outcomes]
    for run in runs:
        run["trial"] = {name: run["trial"][name] for name in ("label", "seed")}
        run["epochs"] = run["epochs"][-1:]
    told = {name: provenance()[name] for name in ("commit", "dirty", "python", "packages")}
    command = ["benchmarks/strategy_study.py"]
    record = {"command": command, **told, "flags": DIGITS, "rows": rows(), "runs": runs}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.check:
        sys.exit(put_blocks(DOC, {"front": table(json.loads(RECORD.read_text())["runs"])}, check=True))
    judge = Judge(attacks=("clean", "pgd-50"))
    outcomes: list[Outcome] = []
    for seed in () if options.render else range(options.seeds):
        outcomes += outcomes_of(trials(seed), judge, options)
        write_record(outcomes)
    record = json.loads(RECORD.read_text())
    draw(record["runs"])
    put_blocks(DOC, {"front": table(record["runs"])}, check=False)


if __name__ == "__main__":
    main()
