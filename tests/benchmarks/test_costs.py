"""Measurements of costs run on something small: every part of a round and of an epoch is timed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.faults.ray_faults import struck_trainer
from benchmarks.speed import run_cost
from benchmarks.speed.round_cost import Case, Options, epoch_shares, measure
from benchmarks.speed.run_cost import measure_batch_size
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.context import RunContext
from tests.support.helpers import CPU, small_config


def test_parts_of_every_kind_of_round_are_timed() -> None:
    config = small_config(model="tiny_cnn", strategy_model="tiny_cnn", batch_size=8)
    found = measure(Case(name="small", config=config), Options(batch_size=8, repeats=2))
    assert all(len(seconds) == 2 for seconds in found["seconds"].values())
    assert {"attack", "target step"} < set(found["rooms"]["fixed"])
    assert {"reference attack", "policy step"} < set(found["rooms"]["with reward"])
    assert all(sum(rooms.values()) == pytest.approx(1, abs=0.01) for rooms in found["rooms"].values())


def test_parts_of_an_epoch_are_timed() -> None:
    shares = epoch_shares(small_config(epochs=1))
    assert set(shares) == {"rounds", "validation", "probe", "checkpoint", "metrics"}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)


def test_sizes_are_compared_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_cost, "ROUNDS", 1)
    asked = run_cost.Options(section="batch-size", model="tiny_cnn", batch_sizes=(2, 4), repeats=2)
    found = measure_batch_size(replace(asked))["seconds_an_image"]
    assert {name: {size: len(turns) for size, turns in sizes.items()} for name, sizes in found.items()} == {
        name: {"2": 2, "4": 2} for name in ("fixed", "learned")
    }


def test_a_struck_run_on_ray_notes_its_rounds(tmp_path: Path) -> None:
    """What the campaign reads of every run; the strike itself needs a process to kill."""
    log = tmp_path / "log"
    plan = {"fault": None, "rank": 0, "round": 0, "marker": str(tmp_path / "marker"), "log": str(log)}
    config = small_config(epochs=1)
    folder = RunFolder.create(tmp_path / "run", config)
    torch.set_num_threads(1)
    struck_trainer(plan)(config, RunContext(group=ProcessGroup(), device=CPU, folder=folder)).run()
    rounds = [int(line.split()[0]) for line in log.read_text().splitlines()]
    records = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert rounds == [record["round"] for record in records if record["kind"] == "round"] != []
