"""The lines under a run's table."""

from __future__ import annotations

from lasat_ray.cli.display import saved_line


def test_what_a_strategy_saved_is_told_beside_the_constant_attack() -> None:
    constant = "10 steps for every image would have cost 1,138 passes in as many rounds; "
    assert saved_line(569.0, 1138.0, 10) == constant + "the strategy spent 569: 50 % saved."
    assert saved_line(1707.0, 1138.0, 10) == constant + "the strategy spent 1,707: 50 % more."
