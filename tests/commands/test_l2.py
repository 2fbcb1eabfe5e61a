"""A run in L2 is L2 wherever it is shown: attacks, curves, pictures, tables, labels, and no L-inf anywhere.

The budget (1.5 in a cube of 64 pixels) is one that tells the norms apart: as L-inf it would allow any image.
"""

import csv
import io
import json
import re

import numpy as np
import pytest
import torch
from rich.console import Console

from lasat_ray import evaluate, explain, leaderboard, report, train
from lasat_ray.api.explained import ExplainOptions, explained
from lasat_ray.attacks.strong import PGDSpec, run_pgd
from lasat_ray.evaluation.subject import from_run
from lasat_ray.models import frozen_eval
from lasat_ray.reporting.nets import LEVELS, evaluate_net_for_report, first_batch
from lasat_ray.reporting.study import read_study
from lasat_ray.rng import RandomKey
from lasat_ray.tune.figures import draw_k, draw_search, draw_weights
from lasat_ray.tune.results import make_record, to_markdown, to_table
from lasat_ray.tune.trial import Trial
from tests.support.helpers import small_config
from tests.support.trials import asked_of, finished

EPS = 1.5
WORDS = [
    *("--recipe", "digits", "--epochs", "6", "--batch-size", "64", "--data.max-test", "60", "-k", "2"),
    *("--model", "mlp", "--strategy-model", "mlp", "--attack.norm", "l2", "--evaluation.norm", "l2"),
    *("--attack.eps", "0.3", "--attack.num-steps", "2", "--attack.step-size", "0.2"),
    *("--attack.grid", "eps=0.2,0.4 num_steps=1..2 step_size=0.2,0.3"),
    *("--evaluation.eps", str(EPS), "--evaluation.step-size", "0.4"),
    *("--evaluation.val-num-steps", "1", "--evaluation.test-num-steps", "2"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("l2") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.argv", ["lasat", *WORDS, "--out", str(out)])
        assert train.main() == 0
        patched.setattr("sys.argv", ["lasat", str(out), "--attacks", "clean", "pgd-3"])
        assert evaluate.main() == 0
    return out


def l2(delta):
    return delta.double().flatten(1).norm(dim=1)


def test_training_tells_it(tmp_path, monkeypatch, capsys):
    words = [*WORDS, "--epochs", "1", "--data.max-train", "130"]
    monkeypatch.setattr("sys.argv", ["lasat", *words, "--out", str(tmp_path / "r")])
    assert train.main() == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"L2 eps {EPS}" in told and "L-inf" not in told
    assert "eps (L2)" in told and "step_size (L2)" in told


def test_the_evaluation_attacks_in_it(run, capsys):
    found = json.loads((run / "evaluation.json").read_text())["attacks"]["pgd-3"]
    assert (found["norm"], found["eps"]) == ("l2", EPS)
    assert 0 < found["accuracy"] < 1  # as L-inf nothing would be left


def test_the_curve_of_the_report_is_the_accuracy_in_l2(run):
    subject = from_run(run, which="best", dataset=None, root=None, max_test=60, trust=False)
    (read,) = read_study([run]).runs
    facts = evaluate_net_for_report(read, 60, False, subject)
    assert facts["norm"] == "l2" and facts["budget"] == f"L2 eps {EPS}"
    assert facts["eps"] == pytest.approx([0, *(level * EPS for level in LEVELS)])
    batch, alone = first_batch(subject, 60), []
    with frozen_eval(subject.net):
        for eps in facts["eps"][1:]:  # without nesting; PGD is near its best on so small a net
            spec = PGDSpec(norm="l2", eps=eps, step_size=eps / 4, num_steps=10)
            alone.append(1 - float(run_pgd(subject.net, batch, spec, RandomKey.of(0)).fooled.double().mean()))
    assert facts["accuracy"][1:] == pytest.approx(alone, abs=0.051)
    assert facts["accuracy"][1] > facts["accuracy"][-1] + 0.2
    shown = facts["gallery"]
    size = l2(shown["x_adv"].double() / 255 - shown["x"].double() / 255)
    # By the strategy of training, at most 0.4, each pixel rounded to 1/255: as L-inf it would be 8 * 0.4.
    assert (size <= 0.4 + 8 / 255).all() and float(size.max()) > 0.15
    assert all(told.startswith("eps (L2) 0.") and "step_size (L2)" in told for told in shown["strategy"])


def test_no_figure_or_table_of_the_report_names_another_norm(run, tmp_path, capsys):
    words = [str(run), "--out", str(tmp_path / "out"), "--n-examples", "20", "--no-png"]
    assert report.main(words) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    written = page[page.rindex("<main") :] if "<main" in page else page
    assert not re.search(r"L-inf|\blinf\b", written)
    for words in (f"L2 eps {EPS}", "L2 budget eps, in [0,1] pixels", "eps (L2)", "step_size (L2)"):
        assert words in written, words
    curve = list(csv.DictReader((tmp_path / "out" / "accuracy-against-eps.csv").open()))
    assert {float(row["x"]) for row in curve} >= {0.0, EPS, 2 * EPS}


def test_explain_looks_for_the_smallest_eps_in_it(run, capsys):
    options = ExplainOptions(run=str(run), images=tuple(map(str, range(8))), restarts=1, resolution=0.02)
    found = explained(options)
    right = (found.eps > 0) & torch.isfinite(found.eps)
    assert found.norm == "l2" and right.sum() >= 3
    size, largest = l2(found.x_adv - found.x)[right], (found.x_adv - found.x).abs().amax((1, 2, 3))[right]
    assert (size <= found.eps[right] + 1e-5).all()
    assert (largest < 0.8 * found.eps[right]).all()  # not every pixel's change is the whole length
    assert explain.main([str(run), "0", "--num-steps", "3", "--restarts", "1", "--resolution", "0.1"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Smallest L2 eps" in told and "eps (L2)" in told and "L-inf" not in told


def test_a_leaderboard_names_it_and_ranks_no_two_norms_together(run, tmp_path, capsys):
    assert leaderboard.main([str(run), "--out", str(tmp_path / "one.md")]) == 0
    theirs = json.loads((run / "evaluation.json").read_text())
    for name, norm, eps, aa in (("a", "l2", EPS, 0.3), ("b", "l2", EPS, 0.4), ("c", "linf", 0.01, 0.9)):
        entry = {"accuracy": aa, "eps": eps, "norm": norm}
        (tmp_path / name).mkdir()
        told = {**theirs, "method": name, "attacks": {"clean": {"accuracy": 0.9}, "aa": entry}}
        (tmp_path / name / "evaluation.json").write_text(json.dumps(told))
    capsys.readouterr()
    names = [str(tmp_path / name) for name in "abc"]
    assert leaderboard.main([*names, "--out", str(tmp_path / "t.json")]) == 0
    assert "digits: accuracy under AutoAttack, L2 eps 1.5" in " ".join(capsys.readouterr().out.split())
    rows = json.loads((tmp_path / "t.json").read_text())["digits"]
    assert [(row["method"], row["rank"], row["budget"]) for row in rows] == [
        ("b", 1, "l2 1.5"),
        ("a", 2, "l2 1.5"),
        ("c", None, "linf 0.01"),
    ]
    assert leaderboard.main([*names, "--out", str(tmp_path / "t.md")]) == 0
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert [", linf 0.01" in line for line in lines[4:7]] == [False, False, True]


@pytest.mark.parametrize("draw", [draw_k, draw_weights, draw_search])
def test_tables_and_pictures_of_sweeps_name_it(draw, monkeypatch):
    trials = [
        Trial(row="PGD-AT", config=small_config(strategy="fixed", attack__norm="l2", evaluation__norm="l2"))
    ]
    outcome = finished(summary={**finished().summary, "norm": "l2", "eps": EPS})
    asked = asked_of("x", config=trials[0].config)
    columns = ("clean", "robust", "eps", "strategy")
    outcomes = {trials[0].name: outcome}
    record = make_record(asked, trials, outcomes, title="t", columns=columns, base="PGD-AT")
    assert "L2 1.5" in to_markdown(record) and "mean eps (L2)" in to_markdown(record)
    assert "kept strategy (L2)" in to_markdown(record) and "inf" not in to_markdown(record)
    console = Console(width=160, file=io.StringIO())
    console.print(to_table(record))
    assert "L2 1.5" in console.file.getvalue()
    titles = []
    monkeypatch.setattr("matplotlib.figure.Figure.suptitle", lambda self, text, **_: titles.append(text))
    assert draw(record).startswith(b"\x89PNG")
    assert "L2 1.5" in titles[0] and np.all(["inf" not in title for title in titles])
