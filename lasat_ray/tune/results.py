"""What a sweep found: a row a contender with means over seeds, and every trial; as CSV, JSON, tables."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lasat_ray.config.json_io import config_to_json
from lasat_ray.config.units import NORM_NAMES, field_name, format_budget
from lasat_ray.reporting.scores import pareto_front
from lasat_ray.runs.folder import provenance
from lasat_ray.tune.options import Asked
from lasat_ray.tune.trial import Outcome, Outcomes, Trial

Row = dict[str, Any]
Draw = Callable[[dict[str, Any]], bytes]
"""A record -> a picture as PNG."""

_HEADS = {
    "clean": "clean",
    "val_clean": "val clean",
    "val_robust": "val robust",
    "seconds": "time, s",
    "relative_seconds": "time / {base}",
    "passes": "Mpasses",
    "relative_passes": "passes / {base}",
    "updates": "updates",
    "trials": "trials",
    "strategy": "kept strategy{lengths}",
    "front": "Pareto front",
    "eps": "mean eps{lengths}",
    "steps": "mean steps",
}


def report(
    asked: Asked,
    trials: Sequence[Trial],
    outcomes: Outcomes,
    console: Console,
    *,
    title: str,
    columns: Sequence[str],
    draw: Draw,
    base: str | None = None,
) -> None:
    """Print the table; write results.json, results.csv, results.md and results.png beside the trials."""
    record = make_record(asked, trials, outcomes, title=title, columns=columns, base=base)
    store = asked.store
    console.print(to_table(record))  # first: the disk may have no room for what follows
    store.write_json("results.json", record)
    store.write("results.csv", to_csv(record).encode())
    store.write("results.md", (to_markdown(record) + "\n").encode())
    store.write("results.png", draw(record))
    console.print(f"Sweep: {store.out} (results.json, .csv, .md, .png)", highlight=False, soft_wrap=True)


def make_record(
    asked: Asked,
    trials: Sequence[Trial],
    outcomes: Outcomes,
    *,
    title: str,
    columns: Sequence[str],
    base: str | None,
) -> dict[str, Any]:
    """Everything there is to know about a sweep, as JSON types; accuracies in [0,1]."""
    rows = make_rows(trials, outcomes, base)
    first = next((o.summary for o in outcomes.values() if o.summary), {})
    facts = {name: first.get(name) for name in ("n_train", "n_test", "norm", "eps", "parameters")}
    return {
        "title": title,
        "columns": list(columns),
        "base": base if any(row["row"] == base for row in rows) else None,
        **facts,
        **provenance(),
        "definition": asked.definition(),
        "concurrent": asked.run.max_concurrent,
        "rows": rows,
        "trials": [trial_record(trial, outcomes[trial.name]) for trial in trials],
    }


def trial_record(trial: Trial, outcome: Outcome) -> dict[str, Any]:
    """One trial with its resolved config."""
    told = trial.to_json()
    return {
        "name": trial.name,
        **{name: told[name] for name in ("row", "parent", "stop_epoch", "timed", "info")},
        "seed": trial.config.seed,
        **outcome.to_json(),
        "passes": outcome.passes,
        "config": config_to_json(trial.config),
    }


def make_rows(trials: Sequence[Trial], outcomes: Outcomes, base: str | None) -> list[Row]:
    """A row a contender: figures of the trial that it keeps for each seed, costs of all its trials."""
    groups: dict[str, dict[int, list[Trial]]] = {}
    for trial in trials:
        groups.setdefault(trial.row, {}).setdefault(trial.config.seed, []).append(trial)
    rows = [_row(name, seeds, groups.get(base or "", {}), outcomes) for name, seeds in groups.items()]
    known = [row for row in rows if row["val_clean"]]
    front = pareto_front([(row["val_clean"][0], row["val_robust"][0]) for row in known])
    for n, row in enumerate(known):
        row["front"] = "yes" if n in front else "no"
    return rows


def kept(trials: Sequence[Trial], outcomes: Outcomes) -> Trial | None:
    """The finished trial that is best on validation; where nothing was validated, the first."""
    finished = [t for t in trials if outcomes[t.name].summary and outcomes[t.name].status == "finished"]
    return max(finished, key=lambda t: (outcomes[t.name].best or (0.0, 0.0))[1], default=None)


def _row(name: str, seeds: dict[int, list[Trial]], base: dict[int, list[Trial]], outcomes: Outcomes) -> Row:
    chosen = {seed: trial for seed, group in seeds.items() if (trial := kept(group, outcomes)) is not None}
    ends = {seed: outcomes[trial.name] for seed, trial in chosen.items()}
    row: Row = {"row": name, "seeds": sorted(ends), "trials": sum(len(group) for group in seeds.values())}
    for status in ("stopped", "failed"):
        row[status] = sum(outcomes[t.name].status == status for group in seeds.values() for t in group)
    for key in ("clean_acc", *_robust_keys(ends)):
        row[key] = _mean(end.summary[key] for end in ends.values() if end.summary)
    row["val_clean"] = _mean(end.best[0] for end in ends.values() if end.best)
    row["val_robust"] = _mean(end.best[1] for end in ends.values() if end.best)
    timed = {s for s in ends if all(t.timed or not any(o.timed for o in seeds[s]) for t in seeds[s])}
    row["seconds"] = _mean(_spent(seeds[s], outcomes, "train_seconds") for s in timed)
    row["passes"] = _mean(_spent(seeds[s], outcomes, "passes") for s in ends)
    both = {s for s in ends if base.get(s) and kept(base[s], outcomes)}
    for figure, source, over in (
        ("relative_seconds", "train_seconds", timed & both),
        ("relative_passes", "passes", both),
    ):
        row[figure] = _mean(
            _spent(seeds[s], outcomes, source) / max(_spent(base[s], outcomes, source), 1e-9) for s in over
        )
    row["updates"] = _mean(end.updates for end in ends.values())
    row["strategy"] = [_strategy(chosen[seed], ends[seed]) for seed in sorted(ends)]
    for figure, field in (("eps", "eps"), ("steps", "num_steps")):
        row[figure] = _mean(end.chosen[field][1] for end in ends.values() if field in end.chosen)
    row["info"] = next((trial.info for trial in chosen.values()), {})
    return row


def _spent(trials: Sequence[Trial], outcomes: Outcomes, what: str) -> float:
    return sum(getattr(outcomes[trial.name], what) for trial in trials)


def _robust_keys(ends: dict[int, Outcome]) -> list[str]:
    first = next(iter(ends.values()), None)
    return [key for key in (first.summary or {} if first else {}) if key.startswith("robust_acc_")]


def _mean(values: Any) -> list[float | None] | None:
    """[mean, standard deviation over seeds (None for one)]; None without values."""
    found = list(values)
    if not found:
        return None
    return [statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None]


def _strategy(trial: Trial, outcome: Outcome) -> str:
    """What the kept run attacked with at its end."""
    attack = trial.config.attack
    if trial.config.strategy == "fixed":
        return f"{format_budget(attack.eps)} {attack.num_steps}x{format_budget(attack.step_size)}"
    mean = {name: last for name, (_, last) in outcome.chosen.items()}
    return f"~{mean['eps']:.3f} {mean['num_steps']:.1f}x{mean['step_size']:.3f}" if mean else ""


def cells(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table as text."""
    base = record["base"] or ""
    columns = [c for c in record["columns"] if base or not c.startswith("relative")]
    robust = list(
        dict.fromkeys(key for row in record["rows"] for key in row if key.startswith("robust_acc_"))
    )
    norm = record["definition"]["config"].get("attack", {}).get("norm", "linf")
    lengths = field_name("eps", norm).removeprefix("eps")
    heads = ["", "seeds"]
    for column in columns:
        names = [key.replace("robust_acc_pgd", "PGD-") for key in robust]
        head = _HEADS.get(column, "").format(base=base, lengths=lengths)
        heads += names if column == "robust" else [head]
    rows = []
    for row in record["rows"]:
        line = [row["row"], str(len(row["seeds"]))]
        for column in columns:
            keys = {"robust": robust, "clean": ["clean_acc"]}.get(column, [column])
            line += [_cell(key, row.get(key)) for key in keys]
        rows.append(line)
    return heads, rows


def _cell(key: str, value: Any) -> str:
    """One figure as the table shows it: accuracies in %, passes in millions."""
    if value is None or value == []:
        return "-"
    if key == "strategy":
        return "; ".join(value)
    if not isinstance(value, list):
        return str(value)
    mean, deviation = value
    factor = 100.0 if "acc" in key or key.startswith("val_") else 1e-6 if key == "passes" else 1.0
    digits = {"seconds": 1, "relative_seconds": 2, "relative_passes": 2, "passes": 2, "updates": 0, "eps": 3}
    places = digits.get(key, 1)
    shown = f"{factor * mean:.{places}f}"
    return shown if deviation is None or key == "updates" else f"{shown} ± {factor * deviation:.{places}f}"


def to_table(record: dict[str, Any]) -> Table:
    heads, rows = cells(record)
    title = f"{record['title']} ({_caption(record)})"
    table = Table(title=title, box=SIMPLE, padding=0)
    rows = [[cell.replace("; ", "\n") for cell in row] for row in rows]
    for n, head in enumerate(heads):
        words = " ".join([head, *(row[n] for row in rows)]).split()
        longest = max((len(word) for word in words), default=1)  # lines break between words, never in one
        whole = any("\n" in row[n] for row in rows)
        side: Literal["left", "right"] = "right" if n else "left"
        table.add_column(head, justify=side, min_width=longest, no_wrap=whole)
    for row in rows:
        table.add_row(*row)
    return table


def to_markdown(record: dict[str, Any]) -> str:
    heads, rows = cells(record)
    lines = [heads, ["---"] * len(heads), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{_caption(record)}."


def threat(record: dict[str, Any]) -> str:
    """``L2 0.5``, norm and eps of the evaluations behind a record; ``-`` where no trial was evaluated."""
    if not record["eps"]:
        return "-"
    # Records from before trials told their norm were all made in L-inf, or say it in their settings.
    asked = record["definition"]["config"].get("evaluation", {}).get("norm", "linf")
    return f"{NORM_NAMES[record.get('norm') or asked]} {format_budget(record['eps'])}"


def _caption(record: dict[str, Any]) -> str:
    """Return the footnote: data set, image counts, eps, epochs, and whether rows are means over seeds."""
    config = record["definition"]["config"]
    images = f"{record['n_train']} training and {record['n_test']} test images"
    told = f"{config['dataset']}, {images}, {threat(record)}"
    told += f", {config['epochs']} epochs" if record["definition"]["sweep"] != "search_strategy" else ""
    several = any(len(row["seeds"]) > 1 for row in record["rows"])
    told += "; mean ± standard deviation over seeds in %" if several else "; in %"
    ended = {status: sum(row[status] for row in record["rows"]) for status in ("stopped", "failed")}
    return told + "".join(f"; {count} trials {status}" for status, count in ended.items() if count)


def to_csv(record: dict[str, Any]) -> str:
    """Return CSV, a line per trial: what it was, cost and gave, and every setting of its config."""
    text, lines = io.StringIO(), []
    for trial in record["trials"]:
        best = max(trial["curve"], key=lambda point: (point[2], point[0]), default=[None] * 3)
        line = {name: trial[name] for name in ("name", "row", "seed", "status", "train_seconds", "passes")}
        line |= {"updates": trial["updates"], "val_clean_acc": best[1], "val_robust_acc": best[2]}
        line |= {k: v for k, v in (trial["summary"] or {}).items() if "_acc" in k}
        line |= {"error": trial["error"]}
        line |= {f"config.{path}": value for path, value in _flat(trial["config"])}
        lines.append(line)
    writer = csv.DictWriter(text, list(dict.fromkeys(name for line in lines for name in line)))
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in tree.items():
        inner = isinstance(value, dict) and name != "grid"
        flat += _flat(value, f"{prefix}{name}.") if inner else [(prefix + name, value)]
    return flat
