"""A policy that is stuck, and gradients that ran away, are told once, with the setting that mends it."""

import json
import math

import pytest

from lasat_ray.cluster.local import train_here
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.policy_watch import UPDATES, policy_warnings
from tests.support.helpers import small_config

SIZES = (3, 2, 1)
UNIFORM = math.log(6)


def told_of(tmp_path, entropy, kl=0.0, norm=1.0, count=UPDATES, more=()):
    file = tmp_path / "metrics.jsonl"
    plain = [{"kind": "round", "round": -1, "loss": 1.0}]
    rounds = [
        {"kind": "round", "round": n, "policy_kl": kl, "policy_entropy": entropy, "policy_grad_norm": norm}
        for n in range(count)
    ]
    file.write_text("".join(json.dumps(record) + "\n" for record in [*plain, *rounds, *more]))
    return policy_warnings(file, SIZES)


@pytest.mark.parametrize(("entropy", "kind"), [(0.0, "deterministic"), (UNIFORM, "uniform")])
def test_a_policy_that_stands_still_is_told_once(entropy, kind, tmp_path):
    (told,) = told_of(tmp_path, entropy)
    assert told.startswith(f"the policy is stuck: {kind}") and "--policy.lr" in told
    assert not told_of(tmp_path, entropy, more=[{"kind": "warning", "round": 9, "told": told}])


@pytest.mark.parametrize(
    "case",
    [
        {"entropy": UNIFORM, "kl": 1e-9},
        {"entropy": UNIFORM / 2},
        {"entropy": 0.0, "count": UPDATES - 1},
        {"entropy": 1.0, "kl": 0.01, "norm": 500.0},
    ],
)
def test_a_policy_that_learns_or_has_only_begun_is_left_alone(case, tmp_path):
    assert told_of(tmp_path, **case) == []


def test_gradients_out_of_any_range_are_told_with_their_round(tmp_path):
    (told,) = told_of(tmp_path, entropy=1.0, kl=0.01, norm=1e18)
    assert told.startswith("gradients of the policy leave any sane range: norm 1e+18 in round 0")
    assert "--policy.lr" in told
    assert policy_warnings(tmp_path / "none.jsonl", SIZES) == []


def test_a_run_writes_the_warning_into_its_records(tmp_path, monkeypatch):
    monkeypatch.setattr("lasat_ray.training.policy_watch.LARGEST_GRADIENT", 0.0)
    config = small_config()
    folder = RunFolder.create(tmp_path / "run", config)
    train_here(config, folder, device="cpu")
    records = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    (warned,) = [record for record in records if record["kind"] == "warning"]
    assert "gradients of the policy" in warned["told"] and warned["round"] == 3
