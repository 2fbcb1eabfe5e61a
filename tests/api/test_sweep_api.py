"""``lasat_ray.sweep``: the commands' sweeps on Ray Tune, from Python."""

from __future__ import annotations

import json

import pytest
from torch import nn

import lasat_ray
from lasat_ray import UserError
from lasat_ray.cluster.local import train_here
from tests.support.ray_runs import new_folder, tiny


@pytest.mark.ray
def test_trials_train_what_the_function_train_does_and_the_result_shows_them(here, capsys):
    found = lasat_ray.sweep("k", tiny(), ks=(2,), seeds=[0], out="swept", progress=False)
    assert [row["row"] for row in found.summary] == ["PGD-AT", "k=2"]
    assert found.folder.name == "swept" and found.page.is_file()
    record = json.loads((found.folder / "results.json").read_text())
    for row, trial in zip(found.summary, record["trials"], strict=True):
        config = lasat_ray.recipe(found.folder / "trials" / trial["name"] / "config.json")
        alone = train_here(config, new_folder(here / trial["name"], config), device="cpu")
        assert row["clean_acc"] == alone["clean_acc"] == trial["summary"]["clean_acc"]
    page = found._repr_html_()
    assert "k=2" in page and "PGD-AT" in page and "results.md" in page
    assert repr(found).startswith("FolderResult(2 rows") and capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"^out: 'swept' already exists; choose another"):
        lasat_ray.sweep("k", tiny(), ks=(2,), out="swept")


@pytest.mark.ray
def test_a_trial_that_fails_is_told_with_the_folder_that_keeps_the_rest(here):
    settings = {"dataset": "npz:absent.npz", "ks": (2,), "out": "swept", "progress": False}
    with pytest.raises(UserError, match=r"absent\.npz|trials failed"):
        lasat_ray.sweep("k", tiny(), **settings)


LINES = [
    (("kk",), {}, "kind: 'kk' is unknown; choose one of: k, strategy, weights"),
    (("k", "digts"), {}, "recipe: 'digts' is unknown; did you mean digits"),
    (("k", {"epochs": 3}), {}, "config: dict is a mapping; unpack it"),
    (("k",), {"ks": 3.5}, "ks: 3.5 is not accepted"),
    (("k",), {"ks": (0,)}, "ks: [0] is out of range; give whole numbers of 1 or more"),
    (("k",), {"ks": (2, 2)}, "ks: 2 stands twice"),
    (("k",), {"kss": (2,)}, "kss: is not a setting"),
    (("k",), {"alphas": (1,)}, "alphas: is not a setting"),
    (("k",), {"attack.eps": 8.0}, "attack.eps: 8 is out of range"),
    (("k",), {"seed": 3}, "seed: '3' has no effect in this sweep; the sweep sets it; see ks and seeds"),
    (("k",), {"max_concurrent": 0}, "max_concurrent: 0 is out of range"),
    (("k",), {"resume": "a"}, "resume: is the command's alone; python -m lasat_ray.tune.sweep_k"),
    (("k",), {"dry_run": True}, "dry_run: is the command's alone"),
    (("k",), {"config": "digits"}, "config: stands second and without its name"),
    (("k",), {"model": nn.Linear(1, 1)}, "model: Linear"),
    (("weights",), {"preset": "table7"}, "preset: 'table7' is not accepted"),
    (("strategy",), {"budget": 0}, "budget: 0 is out of range"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "settings", "line"), LINES, ids=[line[:40] for _, _, line in LINES])
def test_what_cannot_be_is_one_line_and_leaves_nothing(given, settings, line, here):
    with pytest.raises(UserError) as caught:
        lasat_ray.sweep(*given, progress=False, **settings)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
    assert not any(here.iterdir())
