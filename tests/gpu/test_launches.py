"""How often a round makes the host wait, and how many operations it launches: counted, and bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.gpu.launches import CASES, counted

MOST_WAITS = {"PGD-AT": 1, "LAS-AT k=40": 1, "LAS-AT k=1": 2, "influence k=1": 2} | dict.fromkeys(
    ("FAT", "GAIRAT", "DART", "SAT", "CAT"), 2
)
MOST_LAUNCHES = {"PGD-AT": 1893, "LAS-AT k=40": 2584, "influence k=1": 6395}
"""Of ca9d488, where a step was not yet a graph."""


@pytest.mark.parametrize("name", CASES)
def test_a_round_waits_seldom(name: str):
    graph = name in MOST_LAUNCHES
    found = counted(name, graph=graph)
    assert found["waits"] <= MOST_WAITS[name], found["places"]
    if graph:
        assert found["launches"] <= 0.6 * MOST_LAUNCHES[name]


def test_hiding_a_chosen_part_of_each_image_waits_for_nothing(monkeypatch):
    plain = CASES["LAS-AT k=40"]
    grid = {**plain.attack.grid, "erasing": (0.0, 0.3)}
    monkeypatch.setitem(CASES, "erasing", replace(plain, attack=replace(plain.attack, grid=grid)))
    assert counted("erasing", graph=False)["waits"] <= MOST_WAITS["LAS-AT k=40"]
