"""What a policy learned: its variance split without a rest, and a small run looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.studies import policy_study
from benchmarks.studies.policy_study import LEVELS, PARTS, Options, explained, run_seed, summed_up

SMALL = (
    "--epochs",
    "2",
    "--evaluation.every",
    "1",
    "--data.max-train",
    "400",
    "--model",
    "tiny_cnn",
    "-k",
    "1",
)


def seen_at(shift: float, count: int = 60) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(int(shift))
    names = ("steps", "variance", "eps", "margin")
    return {name: shift + torch.rand(count, dtype=torch.float64, generator=rng) for name in names}


def test_the_variance_of_draws_is_split_without_a_rest() -> None:
    y = torch.arange(60) % 3
    seen = [seen_at(shift) for shift in (1.0, 4.0)]
    shares = explained([summed_up(one, y, epoch) for epoch, one in enumerate(seen)])
    assert sum(shares) == pytest.approx(1)
    steps, variance = (torch.cat([one[name] for one in seen]) for name in ("steps", "variance"))
    total = steps.var(correction=0) + variance.mean()  # law of total variance, all draws together
    between = torch.tensor([one["steps"].mean() for one in seen]).var(correction=0)
    assert shares[0] == pytest.approx((between / total).item())
    assert shares[LEVELS.index("draws")] == pytest.approx((variance.mean() / total).item())


def test_a_policy_that_looks_at_the_class_alone_is_told_so() -> None:
    y = torch.arange(60) % 3
    seen = {**seen_at(1.0), "steps": y.double(), "variance": torch.zeros(60).double()}
    assert explained([summed_up(seen, y, 1)]) == pytest.approx([0, 1, 0, 0])


def test_groups_by_margin_are_told_from_the_smallest() -> None:
    seen = {**seen_at(1.0), "steps": torch.arange(60).double(), "margin": torch.arange(60).double()}
    found = summed_up(seen, torch.zeros(60, dtype=torch.int64), 1)["steps_by_margin"]
    assert len(found) == PARTS and found == sorted(found) and found[0] == pytest.approx(5.5)


def test_a_run_is_looked_at_in_every_validated_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_seed(3, Options(out=tmp_path, flags=SMALL))
    assert [epoch["epoch"] for epoch in run["epochs"]] == [1, 2]
    for epoch in run["epochs"]:
        assert 1 <= epoch["steps"] <= 10 and 0.2 <= epoch["eps"] <= 0.25
        assert len(epoch["steps_by_class"]) == 10
    monkeypatch.setattr(policy_study, "read_record", lambda name: {"runs": [run]})
    assert f"{run['images']:,} images" in policy_study.tables()["policy"]
