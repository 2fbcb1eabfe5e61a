"""Robust accuracy against compute: every strategy at equal passes, over seeds.

    python -m benchmarks.studies.compute_plane --jobs 2
    python -m benchmarks.studies.compute_plane --budgets 1000 --rows constant-3 rate-heldout --seeds 10 11
    python -m benchmarks.tables docs/strategy_learning.md

Passes are forward passes of both nets per training image, counted by the budget itself; a run ends within
half a round of it. The record is written after each seed, so the command can be killed and repeated.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from benchmarks.studies.outcomes import Outcome, by_label, mean_std, paired, percent, slim
from benchmarks.studies.study import Judge, RunOptions, Trial, seed_after_seed

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks" / "records" / "compute_plane_digits.json"
REFERENCE = "constant-10"

_STEP = {1: 0.25, 2: 0.15, 3: 0.1, 5: 0.1, 10: 0.05}
"""Step size of the constants, in [0,1] pixels: what served each number of steps best on seeds 0 to 2."""
_GRID = "eps=0.2,0.25 num_steps=1,2,3,5,10 step_size=0.05,0.1,0.15,0.2,0.25"
_BY_STEPS = "eps=0.2 num_steps=1,2,3,5,10 step_size=0.1"
_PAID = (
    *("--learner", "ppo", "--reward.credit", "influence", "--reward.standardize", "--reward.l1-weight", "0"),
    *("--attack.grid", _GRID, "--policy.lr", "2e-3", "-k", "10"),
)
"""Chosen on seed 0 among k = 5 and 10, rates of 1e-3 and 2e-3, and this grid against all of 1 to 10 steps."""
_LEARNED = ("--strategy", "learned", "--strategy-model", "tiny_cnn", *_PAID)
_HELDOUT = ("--reward.outcome", "heldout")
_RATE = ("--reward.objective", "rate")


def _constant(steps: int) -> tuple[str, ...]:
    settings = ("--attack.num-steps", str(steps), "--attack.step-size", str(_STEP[steps]))
    return ("--strategy", "fixed", *settings)


ROWS: dict[str, tuple[str, ...]] = {
    **{f"constant-{steps}": _constant(steps) for steps in _STEP},
    "curriculum": ("--strategy", "curriculum", "--attack.grid", _BY_STEPS),
    "margin": ("--strategy", "margin", "--attack.grid", _BY_STEPS),
    "random": ("--strategy", "random", "--attack.grid", _GRID),
    "class-wise": ("--strategy", "class-wise", *_PAID, *_RATE, *_HELDOUT),
    "total-batch": _LEARNED,
    "total-heldout": (*_LEARNED, *_HELDOUT),
    "rate-batch": (*_LEARNED, *_RATE),
    "rate-heldout": (*_LEARNED, *_RATE, *_HELDOUT),
    "rate-priced": (*_LEARNED, *_RATE, *_HELDOUT, "--policy.initial-price", "2"),
}
TOLD = {
    "constant-10": "constant, 10 steps (PGD-AT)",
    "curriculum": "curriculum of 1, 2, 3, 5, 10 steps by the clock",
    "margin": "by the clean image's margin, 1 to 10 steps",
    "random": "random",
    "class-wise": "learned table per class, rate, outcome held out",
    "total-batch": "learned, total, outcome on the batch",
    "total-heldout": "learned, total, outcome held out",
    "rate-batch": "learned, rate, outcome on the batch",
    "rate-heldout": "learned, rate, outcome held out",
    "rate-priced": "**learned, rate, outcome held out, cheap attacks first** (the default)",
}


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """What to run."""

    budgets: tuple[int, ...] = (350, 1000)
    """Passes per training image."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Of the strategies."""
    seeds: tuple[int, ...] = (10, 11, 12, 13, 14, 15)
    """None of them chose a setting: those come from seeds 0 to 2."""
    out: Path = Path("runs/compute_plane")


STEPS = (1, 2, 3, 5, 10)
JUDGE = Judge(attacks=("clean", "pgd-50", "apgd-t"), n_autoattack=100)
"""Targeted APGD is AutoAttack's strongest part on these nets, at a third of its price."""


def trials(options: Options, seed: int) -> list[Trial]:
    """Every run of one seed."""
    shared = ("--recipe", "digits", "--evaluation.every", "5", "--evaluation.test-num-steps", "10")
    return [
        Trial(label=f"{row}@{budget}", flags=(*shared, *ROWS[row], "--budget", f"{budget}passes"), seed=seed)
        for budget in options.budgets
        for row in options.rows
    ]


def kept(outcome: Outcome) -> Outcome:
    """What the record holds of a run; ``spent``: counted passes per training image."""
    if "spent" in outcome:
        return outcome
    found = slim(outcome)
    found["trial"] = {name: found["trial"][name] for name in ("label", "seed", "teacher")}
    found["spent"] = outcome["summary"]["passes_per_image"]
    found["steps"] = mean_steps(found.pop("epochs"), 8)
    found.pop("passes_per_image")
    return found


def mean_steps(epochs: Sequence[dict[str, Any]], parts: int) -> list[float]:
    """The mean number of steps over equal parts of the run, [parts]; empty where one was fixed."""
    options = [
        e["options"]["num_steps"]
        for e in epochs
        if len(e.get("options", {}).get("num_steps", [])) == len(STEPS)
    ]
    means = [
        sum(steps * c for steps, c in zip(STEPS, counts, strict=True)) / max(sum(counts), 1)
        for counts in options
    ]
    cuts = [round(n * len(means) / parts) for n in range(parts + 1)]
    return [statistics.mean(means[a:b]) for a, b in itertools.pairwise(cuts) if b > a]


def write_record(outcomes: Sequence[Outcome]) -> None:
    """All finished runs as committed data, beside those of other budgets and rows that it already holds."""
    from lasat_ray.runs.folder import provenance  # loads torch, which tables do without

    before = json.loads(RECORD.read_text())["runs"] if RECORD.is_file() else []
    runs = {run["key"]: run for run in [*before, *map(kept, outcomes)]}
    told = {name: provenance()[name] for name in ("commit", "python", "packages")}
    record = {"command": ["benchmarks.studies.compute_plane"], **told, "runs": list(runs.values())}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


def table(runs: Sequence[Outcome], budget: int) -> str:
    """Markdown: a line per strategy; paired differences to PGD-AT of the same passes."""
    rows = {
        label.partition("@")[0]: found
        for label, found in by_label(runs).items()
        if label.endswith(f"@{budget}")
    }
    lines = [
        "| strategy | clean | PGD-50 | APGD-T | PGD-50 gain | APGD-T gain | steps | rounds | passes "
        "| seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in [row for row in ROWS if row in rows]:
        found = rows[row]
        count = row.rpartition("-")[2]
        cells = [TOLD.get(row) or f"constant, {count} step{'s' * (count != '1')}"]
        cells += [mean_std(percent(found, attack)) for attack in ("clean", "pgd-50", "apgd-t")]
        for attack in ("pgd-50", "apgd-t"):
            gap = paired(found, rows[REFERENCE], attack) if row != REFERENCE else None
            cells.append(f"{gap['difference']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}]" if gap else "")
        courses = [run["steps"] for run in found if run["steps"]]
        first, last = ([course[n] for course in courses] for n in (0, -1))
        cells.append(f"{statistics.mean(first):.1f} -> {statistics.mean(last):.1f}" if courses else "")
        cells.append(f"{statistics.mean(run['summary']['rounds'] for run in found):.0f}")
        cells.append(f"{statistics.mean(run['spent'] for run in found):.0f}")
        lines.append(f"| {' | '.join([*cells, str(len(found))])} |")
    judged, net = runs[0]["evaluation"], runs[0]["summary"]
    caption = (
        f"8x8 digits, L-inf 0.2, {net['n_train']:,} training images, a net of {net['parameters']:,} "
        f"parameters; {judged['pgd-50']['n']} test images (APGD-T: the first {judged['apgd-t']['n']}), the "
        "best epoch on validation. Mean ± standard deviation over seeds in %; gains over PGD-AT of the same "
        "passes in percentage points, paired over seeds, with 95 % intervals (Student's t). Steps: mean of "
        "the first and the last eighth of the run. Passes: spent per training image, counted."
    )
    return "\n".join([*lines, "", caption])


def tables() -> dict[str, str]:
    """The table of every budget that the record holds."""
    if not RECORD.is_file():
        return {}
    runs = json.loads(RECORD.read_text())["runs"]
    budgets = sorted({int(run["trial"]["label"].partition("@")[2]) for run in runs})
    return {f"plane {budget}": table(runs, budget) for budget in budgets}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    seeds = [trials(options, seed) for seed in options.seeds]
    own = replace(options, out=options.out / "digits")
    for outcomes in seed_after_seed(seeds, JUDGE, own, RECORD):
        write_record(outcomes)


if __name__ == "__main__":
    main()
