"""The rows of Table 1 in slices: the same bits as in one go, and everything that is kept."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.gpu import reproduce_table1
from lasat_ray.recipes import get_recipe
from lasat_ray.runs.load import load_model


def slices(monkeypatch, out, seconds, rows=("pgd-at",)):
    """Repeat the command until it is done; how often it was called."""
    words = ["--tiny", "--device", "cpu", "--out", str(out), "--slice-seconds", str(seconds), "--rows", *rows]
    monkeypatch.setattr(sys, "argv", ["reproduce_table1", *words])
    for calls in range(1, 12):
        status = reproduce_table1.main()
        if status == 0:
            return calls
        assert status == reproduce_table1.MORE_TO_DO
    raise AssertionError("never done")


@pytest.mark.slow
def test_slices_end_where_one_run_ends(tmp_path, monkeypatch):
    assert slices(monkeypatch, tmp_path / "whole", 500, rows=("las-at-k1",)) == 1
    assert slices(monkeypatch, tmp_path / "sliced", 0, rows=("las-at-k1",)) >= 4  # two epochs, two attacks
    files = [f"las-at-k1-weights-{n}.safetensors" for n in (1, 2)]
    whole, sliced = ([load_file(tmp_path / name / file) for file in files] for name in ("whole", "sliced"))
    for ours, theirs in zip(whole, sliced, strict=True):
        assert ours.keys() == theirs.keys() and ours
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    net = load_model(tmp_path / "whole" / "las-at-k1").state_dict()
    assert net.keys() == whole[0].keys() | whole[1].keys()
    kept = {**whole[0], **whole[1]}
    assert all(torch.equal(kept[name], net[name].to(kept[name].dtype)) for name in net)
    rows = [json.loads((tmp_path / name / "table1.json").read_text())["rows"] for name in ("whole", "sliced")]
    first, second = (row["las-at-k1"] for row in rows)
    assert first["measured"] == second["measured"] and first["measured"]["n"] == 4
    assert first["reported"] == get_recipe("table1-cifar10-resnet18-las-at-k1").reported
