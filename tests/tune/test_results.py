"""Tables from outcomes: what is kept, what it cost, what is told of failures; and the pictures."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest
from rich.console import Console

from lasat_ray.reporting.scores import pareto_front
from lasat_ray.tune.figures import draw_k, draw_search, draw_weights
from lasat_ray.tune.results import make_record, report, to_csv, to_markdown, to_table
from lasat_ray.tune.trial import Outcome, Trial
from tests.support.helpers import small_config
from tests.support.trials import asked_of, finished

SEEDS = (0, 1)


def group(**odd):
    """PGD-AT and k=1 with two seeds each; ``odd``: (row, seed) as row_seed -> another outcome."""
    trials = [
        Trial(row=row, config=small_config(seed=seed, strategy=kind))
        for seed in SEEDS
        for row, kind in (("PGD-AT", "fixed"), ("k=1", "learned"))
    ]
    outcomes = {}
    for trial in trials:
        slow = 2.0 if trial.row == "k=1" else 1.0
        seed = trial.config.seed
        outcomes[trial.name] = finished(
            clean=0.9 + seed / 50,
            robust=0.5,
            train_seconds=10.0 * slow * (1 + seed),
            target_passes=1e6 * slow,
        )
    for place, outcome in odd.items():
        row, _, seed = place.rpartition("_")
        (trial,) = [t for t in trials if t.row == row and t.config.seed == int(seed)]
        outcomes[trial.name] = outcome
    return trials, outcomes


def record_of(
    trials, outcomes, columns=("clean", "robust", "seconds", "relative_seconds", "relative_passes")
):
    return make_record(asked_of("x"), trials, outcomes, title="t", columns=columns, base="PGD-AT")


def test_rows_are_means_over_seeds_and_time_is_compared_seed_by_seed():
    record = record_of(*group())
    pgd, k1 = record["rows"]
    assert pgd["clean_acc"] == pytest.approx([0.91, 0.01 * 2**0.5])
    assert k1["seconds"] == pytest.approx([30.0, 10 * 2**0.5 * 1.0])
    # Both seeds took twice as long as PGD-AT of the same seed: the spread between seeds cancels.
    assert k1["relative_seconds"] == pytest.approx([2.0, 0.0])
    assert k1["relative_passes"] == pytest.approx([2.0, 0.0])
    assert "| k=1 | 2 | 91.0 ± 1.4 | 50.0 ± 0.0 | 30.0 ± 14.1 | 2.00 ± 0.00 | 2.00 ± 0.00 |" in to_markdown(
        record
    )


def test_one_seed_has_no_deviation():
    trials, outcomes = group()
    record = record_of([t for t in trials if t.config.seed == 0], outcomes)
    assert record["rows"][1]["clean_acc"] == [0.9, None]
    assert "| k=1 | 1 | 90.0 | 50.0 | 20.0 | 2.00 | 2.00 |" in to_markdown(record)


def test_a_failed_and_a_stopped_trial_leave_their_row_with_the_other_seeds():
    failed = Outcome(status="failed", error="npz:absent: no such file")
    stopped = dataclasses.replace(finished(), status="stopped", summary=None)
    record = record_of(*group(**{"k=1_0": failed, "PGD-AT_1": stopped}))
    pgd, k1 = record["rows"]
    assert (pgd["seeds"], pgd["stopped"], k1["seeds"], k1["failed"]) == ([0], 1, [1], 1)
    assert k1["relative_seconds"] is None, "no seed has both"
    assert "1 trials stopped; 1 trials failed" in to_markdown(record)
    lines = list(csv.DictReader(io.StringIO(to_csv(record))))
    assert [line["error"] for line in lines].count("npz:absent: no such file") == 1


def test_a_row_without_any_result_is_shown_as_such():
    failed = Outcome(status="failed", error="x")
    record = record_of(*group(**{"k=1_0": failed, "k=1_1": failed}))
    assert "| k=1 | 0 | - | - | - | - | - |" in to_markdown(record)
    assert to_csv(record)
    trials, outcomes = group()
    nothing = record_of(trials, dict.fromkeys(outcomes, failed))
    for draw in (draw_k, draw_weights, draw_search):
        assert draw(record).startswith(b"\x89PNG") and draw(nothing).startswith(b"\x89PNG")


def test_of_several_trials_of_a_seed_the_best_on_validation_is_kept_and_all_are_paid():
    trials = [
        Trial(row="TPE", config=small_config(strategy="fixed", attack__eps=eps)) for eps in (0.1, 0.2, 0.3)
    ]
    good = finished(clean=0.8, robust=0.6)
    lucky = finished(clean=0.7, curve=((1, 0.7, 0.3),), summary={**good.summary, "robust_acc_pgd10": 0.99})
    outcomes = dict(zip([t.name for t in trials], (finished(robust=0.4), good, lucky), strict=True))
    (row,) = record_of(trials, outcomes)["rows"]
    assert row["robust_acc_pgd10"] == [0.6, None], "chosen on validation, not on the test set"
    assert row["passes"] == [3000.0, None] and row["trials"] == 3
    assert row["strategy"] == ["0.2 2x0.1"]


def test_the_record_holds_the_resolved_config_of_every_trial():
    trials, outcomes = group()
    record = record_of(trials, outcomes)
    assert [t["config"]["seed"] for t in record["trials"]] == [0, 0, 1, 1]
    assert {"command", "commit", "packages", "definition"} <= set(record)
    lines = list(csv.DictReader(io.StringIO(to_csv(record))))
    assert [line["config.reward.alpha"] for line in lines] == ["1.0"] * 4
    assert [line["row"] for line in lines] == ["PGD-AT", "k=1"] * 2


def test_a_report_is_printed_and_written_in_four_forms(tmp_path):
    trials, outcomes = group()
    shown = io.StringIO()
    console = Console(file=shown, width=120)
    asked = asked_of(tmp_path / "s")
    report(
        asked, trials, outcomes, console, title="T", columns=("clean", "robust"), draw=draw_k, base="PGD-AT"
    )
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert names == {"results.json", "results.csv", "results.md", "results.png"}
    assert (
        "91.0 ± 1.4" in shown.getvalue() and (tmp_path / "s" / "results.png").read_bytes()[:4] == b"\x89PNG"
    )


def test_the_pareto_front_is_what_nothing_beats():
    points = [(1.0, 5.0), (2.0, 4.0), (1.5, 4.0), (3.0, 1.0), (2.0, 4.0), (0.0, 0.0)]
    assert [points[n] for n in pareto_front(points)] == [(1.0, 5.0), (2.0, 4.0), (2.0, 4.0), (3.0, 1.0)]


@pytest.mark.parametrize("draw", [draw_k, draw_weights, draw_search])
def test_pictures_are_drawn_from_the_record_alone(draw):
    picture = draw(record_of(*group()))
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


def test_the_table_fits_what_it_says():
    table = to_table(record_of(*group()))
    assert [column.header for column in table.columns][:4] == ["", "seeds", "clean", "PGD-10"]
    assert table.row_count == 2


def test_a_terminal_of_80_columns_shows_every_word_whole():
    trials, outcomes = group()
    record = record_of(trials, outcomes)
    record["columns"] = ["clean", "robust", "val_robust", "trials", "passes", "strategy"]
    shown = io.StringIO()
    Console(file=shown, width=80).print(to_table(record))
    assert "…" not in shown.getvalue() and "~0.200 9.0x0.050" in shown.getvalue()
