"""The study of robust overfitting: its rows, what it reads from records, where a gain ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.studies import robust_overfitting as study
from lasat_ray.cli.run_options import parse_train
from lasat_ray.config import TrainConfig
from lasat_ray.learners import LEARNERS
from lasat_ray.methods import METHODS
from lasat_ray.training.early_stopping import EarlyStopping
from lasat_ray.validation import check


@pytest.mark.parametrize("row", study.ROWS)
def test_every_row_is_a_valid_run_of_equal_passes(row: str) -> None:
    config, _ = parse_train([*study.SHARED, "--dataset", "npz:a.npz", *study.ROWS[row]])
    check(config, METHODS, LEARNERS)
    assert config.budget_passes == 23 * config.epochs  # PGD-10 costs 23 passes an image
    assert row in study.NAMES and config.stop_patience == study.PATIENCE


def test_a_course_is_of_validated_epochs(tmp_path: Path) -> None:
    def paid(steps: float, gain: float, price: float) -> dict[str, object]:
        return {"kind": "round", "num_steps": steps, "gain": gain, "price": price}

    told = {"kind": "epoch", "budget_spent": 0.5, "val_clean_acc": 0.4, "val_robust_acc_pgd10": 0.3}
    records = [
        *(paid(2.0, 3.0, 0.2), {"kind": "round", "num_steps": 4.0}, {"kind": "epoch", "budget_spent": 0.2}),
        *(paid(3.0, -1.0, 0.0), told, {"kind": "round", "num_steps": 7.0}, {**told, "budget_spent": 1.0}),
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert study.course(tmp_path) == [
        {"spent": 0.5, "clean": 0.4, "pgd-10": 0.3, "steps": 3.0, "gain": 1.0, "price": 0.0},
        {"spent": 1.0, "clean": 0.4, "pgd-10": 0.3, "steps": 7.0},
    ]


@pytest.mark.parametrize("positive", ["1" * 20, "1110000100000111", "00000", "1" * 9 + "0" * 4])
def test_gain_ends_where_the_option_would_end_the_run(positive: str) -> None:
    stopping = EarlyStopping(replace(TrainConfig(), stop_on="gain"))
    ended = None
    for place, sign in enumerate(positive):
        stopping.update(0.5, 1.0 if sign == "1" else -1.0)
        ended = place if ended is None and stopping.is_over else ended
    assert study.stopped([{"price": float(sign)} for sign in positive]) == ended
