"""Tables on a terminal of 80 columns: names may fold, no figure is cut or broken."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table

from lasat_ray.api.commands.explain import _strategy_tables
from lasat_ray.api.explained import Explained
from lasat_ray.cli.display import result_table, strategy_table
from lasat_ray.evaluation.show import attack_table

LONG = "examples.own_attack:noise_of_somebody_who_likes_long_names"


def shown(table: Table) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    text = capture.get()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_results_of_long_runs_with_long_names() -> None:
    summary = {
        "clean_acc": 1.0,
        "robust_acc_pgd10": 0.7234,
        "robust_acc_pgd50": 0.7123,
        "rounds": 85960,
        "passes_per_image": 1234567.0,
        "img_per_second": 12345.6,
        "n_test": 10000,
        "norm": "linf",
        "eps": 8 / 255,
    }
    text = shown(result_table([(f"{LONG} learned", summary), ("pgd-at fixed", summary)]))
    for figure in ("100.0 %", "72.3 %", "71.2 %", "85960", "1234567", "12346"):
        assert text.count(figure) == 2, figure


def test_an_evaluation_with_an_attack_of_somebodys() -> None:
    entry = {
        "eps": 8 / 255,
        "norm": "linf",
        "accuracy": 1.0,
        "interval": (0.9988, 1.0),
        "forward_passes_per_image": 12345.6,
        "backward_passes_per_image": 12340.6,
        "seconds": 86400.5,
    }
    text = shown(attack_table({"n": 10000, "attacks": {LONG: entry}, "worst_case": entry}))
    for figure in ("100.00 %", "99.88 .. 100.00", "12345.6", "12340.6", "86400.5", "8/255 linf"):
        assert figure in text


def test_the_published_grid() -> None:
    grid = {"eps": tuple(n / 255 for n in range(3, 16)), "num_steps": tuple(map(float, range(3, 15)))}
    counts = {name: [1.0] * len(values) for name, values in grid.items()}
    text = shown(strategy_table(grid, counts, counts, "linf"))
    assert "9.0/255 -> 9.0/255" in text and "(3/255 .. 15/255)" in text and "(3 .. 14)" in text


def test_probabilities_of_a_fine_grid() -> None:
    values = [n / 255 for n in range(3, 16)]
    share = torch.arange(13.0).div(78).expand(2, 13)
    nothing = torch.zeros(2)
    found = Explained(
        names=("test image 12345", "my_digit.png"),
        classes=("0", "1"),
        norm="linf",
        attack_norm="linf",
        x=torch.zeros(2, 1, 8, 8),
        y=nothing,
        p=torch.zeros(2, 2),
        eps=nothing,
        x_adv=torch.zeros(2, 1, 8, 8),
        after=nothing,
        shares={"eps": (values, share)},
    )
    tables = _strategy_tables(found, 80)
    text = "".join(map(shown, tables))
    assert len(tables) > 1
    assert [text.count(f" {n}/255 ") for n in range(3, 16)] == [1] * 13
    assert all(text.count(f" {100 * n / 78:.0f} ") >= 2 for n in range(13))
