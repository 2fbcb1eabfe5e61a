"""What a person sees of a run: the bar while it trains, the lines under its table."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lasat_ray.cli import display
from lasat_ray.cli.display import TrainingDisplay, next_lines, saved_line, waiting
from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.recipes import get_recipe


def test_what_a_strategy_saved_is_told_beside_the_constant_attack() -> None:
    constant = "10 steps for every image would have cost 1,138 passes in as many rounds; "
    assert saved_line(569.0, 1138.0, 10) == constant + "the strategy spent 569: 50 % saved."
    assert saved_line(1707.0, 1138.0, 10) == constant + "the strategy spent 1,707: 50 % more."


def test_what_comes_next_names_tools_that_are_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "find_spec", lambda name: None)
    assert next_lines(Path("runs/my run")) == [
        "Next: python -m lasat_ray.evaluate 'runs/my run'",
        "      python -m lasat_ray.report 'runs/my run' --out 'runs/my run/report'",
        "      in Python: lasat_ray.load_model('runs/my run')",
    ]
    monkeypatch.setattr(display, "find_spec", lambda name: object())
    assert next_lines(Path("runs/a"))[2] == "      tensorboard --logdir runs/a"


def shares(config: TrainConfig, records: list[dict[str, float]]) -> list[float | None]:
    """How full the bar is after each record; None while its length is unknown."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    told = []
    with TrainingDisplay(console, "run", grid_of(config)) as shown:
        shown.on_start(Path("runs/a"), config)
        for record in records:
            (shown.on_epoch if "epochs" in record else shown.on_round)(record)
            (task,) = shown._progress.tasks
            told.append(task.completed if task.total else None)
    return told


ROUND = {"loss": 1.0, "eps": 0.1, "num_steps": 3.0}
EPOCH = {"options": {}, "train_seconds": 1.0, "img_per_second": 10.0, "epochs": 4}


def test_the_bar_moves_within_an_epoch() -> None:
    config = replace(get_recipe("digits").config, epochs=4)
    rounds = [{**ROUND, "epoch": 0.5}, {**EPOCH, "epoch": 1}, {**ROUND, "epoch": 1.25}]
    assert shares(config, rounds) == [0.125, 0.25, 0.3125]


def test_with_a_budget_the_first_epoch_tells_how_far_one_moves_the_bar() -> None:
    config = replace(get_recipe("digits").config, epochs=4, budget_passes=100.0)
    epoch = {**EPOCH, "epoch": 1, "budget_spent": 0.1}
    rounds = [{**ROUND, "epoch": 0.5}, epoch, {**ROUND, "epoch": 1.5}, {**ROUND, "epoch": 40.0}]
    assert shares(config, rounds) == [None, 0.1, pytest.approx(0.15), 1.0]


def test_a_log_shows_no_line_that_lives() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
        with waiting(console, "Ray"):
            pass
        assert ("starting Ray" in console.file.getvalue()) is terminal
