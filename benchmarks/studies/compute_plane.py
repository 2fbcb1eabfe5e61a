"""Robust accuracy against compute: every strategy at equal passes, over seeds.

    python -m benchmarks.studies.compute_plane --jobs 2
    python -m benchmarks.studies.compute_plane --budgets 1000 --rows constant-3 rate-heldout --seeds 10 11
    python -m benchmarks.studies.small_images parquet:PATH_TO_CIFAR10 cifar10_16.npz
    python -m benchmarks.studies.compute_plane --plane cifar10 --dataset npz:cifar10_16.npz --budgets 350
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
from typing import Any, Literal

import tyro

from benchmarks.studies.outcomes import Outcome, by_label, mean_std, paired, percent, slim
from benchmarks.studies.planes import PLANES, REFERENCE, STEPS, Plane
from benchmarks.studies.study import RunOptions, Trial, seed_after_seed

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "benchmarks" / "records"


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """What to run."""

    plane: Literal["digits", "cifar10", "gtsrb"] = "digits"
    """Data and strategies, see ``planes``."""
    dataset: str | None = None
    """Where the images lie, for planes other than digits; small_images makes the file."""
    budgets: tuple[int, ...] = (350, 1000)
    """Passes per training image."""
    rows: tuple[str, ...] = ()
    """Of the plane's strategies; all where none is named."""
    seeds: tuple[int, ...] = (10, 11, 12, 13, 14, 15)
    """None of them chose a setting: those come from seeds 0 to 2."""
    out: Path = Path("runs/compute_plane")


def trials(options: Options, seed: int) -> list[Trial]:
    """Every run of one seed."""
    plane = PLANES[options.plane]
    data = ("--dataset", options.dataset) if options.dataset else ()
    return [
        Trial(
            label=f"{row}@{budget}",
            flags=(*plane.shared, *plane.rows[row], "--budget", f"{budget}passes", *data),
            seed=seed,
        )
        for budget in options.budgets
        for row in options.rows or plane.rows
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


def record_of(plane: str) -> Path:
    """The file of a plane's committed runs."""
    return RECORDS / f"compute_plane_{plane}.json"


def write_record(outcomes: Sequence[Outcome], file: Path) -> None:
    """All finished runs as committed data, beside those of other budgets and rows that it already holds."""
    from lasat_ray.runs.folder import provenance  # loads torch, which tables do without

    before = json.loads(file.read_text())["runs"] if file.is_file() else []
    runs = {run["key"]: run for run in [*before, *map(kept, outcomes)]}
    told = {name: provenance()[name] for name in ("commit", "python", "packages")}
    record = {"command": ["benchmarks.studies.compute_plane"], **told, "runs": list(runs.values())}
    file.write_text(json.dumps(record, indent=1) + "\n")


def table(plane: Plane, runs: Sequence[Outcome], budget: int) -> str:
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
    for row in [row for row in plane.rows if row in rows]:
        found = rows[row]
        count = row.rpartition("-")[2]
        cells = [plane.told.get(row) or f"constant, {count} step{'s' * (count != '1')}"]
        cells += [mean_std(percent(found, attack)) for attack in ("clean", "pgd-50", "apgd-t")]
        for attack in ("pgd-50", "apgd-t"):
            gap = paired(found, rows[REFERENCE], attack) if row != REFERENCE else None
            between = f" [{gap['low']:+.1f}, {gap['high']:+.1f}]" if gap and gap["n"] > 1 else ""
            cells.append(f"{gap['difference']:+.1f}{between}" if gap else "")
        courses = [run["steps"] for run in found if run["steps"]]
        first, last = ([course[n] for course in courses] for n in (0, -1))
        cells.append(f"{statistics.mean(first):.1f} -> {statistics.mean(last):.1f}" if courses else "")
        cells.append(f"{statistics.mean(run['summary']['rounds'] for run in found):.0f}")
        cells.append(f"{statistics.mean(run['spent'] for run in found):.0f}")
        lines.append(f"| {' | '.join([*cells, str(len(found))])} |")
    judged, net = runs[0]["evaluation"], runs[0]["summary"]
    caption = (
        f"{plane.of}, {net['n_train']:,} training images, a net of {net['parameters']:,} "
        f"parameters; {judged['pgd-50']['n']} test images (APGD-T: the first {judged['apgd-t']['n']}), the "
        "best epoch on validation. Mean ± standard deviation over seeds in %; gains over PGD-AT of the same "
        "passes in percentage points, paired over seeds, with 95 % intervals (Student's t). Steps: mean of "
        "the first and the last eighth of the run. Passes: spent per training image, counted."
    )
    return "\n".join([*lines, "", caption])


def tables() -> dict[str, str]:
    """The table of every budget that the records hold."""
    found: dict[str, str] = {}
    for name, plane in PLANES.items():
        runs = json.loads(record_of(name).read_text())["runs"] if record_of(name).is_file() else []
        for budget in sorted({int(run["trial"]["label"].partition("@")[2]) for run in runs}):
            at = [run for run in runs if run["trial"]["label"].endswith(f"@{budget}")]
            mark = f"plane {budget}" if name == "digits" else f"plane {name} {budget}"
            found[mark] = table(plane, at, budget)
    return found


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if PLANES[options.plane].needs_data and not options.dataset:
        raise SystemExit(f"--dataset: plane {options.plane} needs its images; name the file of small_images")
    seeds = [trials(options, seed) for seed in options.seeds]
    own = replace(options, out=options.out / options.plane)
    file = record_of(options.plane)
    for outcomes in seed_after_seed(seeds, PLANES[options.plane].judge, own, file):
        write_record(outcomes, file)


if __name__ == "__main__":
    main()
