"""Awkward sets through train, evaluate, explain, report: the right numbers, or one line before training."""

import json

import pytest

from lasat_ray.evaluate import main as evaluate_main
from lasat_ray.explain import main as explain_main
from lasat_ray.report import main as report_main
from lasat_ray.train import main as train_main
from tests.support.awkward_more import ALL, make
from tests.support.awkward_sets import Reads

QUICK = ["--model", "mlp", "--strategy", "fixed", "--attack.num-steps", "1", "--batch-size", "4"]
QUICK += ["--evaluation.test-num-steps", "1", "--evaluation.val-num-steps", "1", "--attack.eps", "8/255"]
QUICK += ["--data.val-fraction", "0", "--epochs", "6"]
READ = [name for name, known in ALL.items() if isinstance(known[2], Reads)]
REFUSED = [name for name in ALL if name not in READ]


def test_there_are_more_than_thirty_of_them():
    assert len(READ) >= 30 and len(REFUSED) >= 30


@pytest.mark.parametrize("name", REFUSED)
def test_a_set_that_cannot_be_is_one_line_and_leaves_nothing(name, tmp_path, monkeypatch, capsys):
    args = [*QUICK, "--dataset", make(name, tmp_path), "--out", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["train", *args])
    assert train_main() in (1, 2)
    error = capsys.readouterr().err
    assert ALL[name][2].told in error and "a bug of ours" not in error
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", READ)
def test_every_command_gives_the_right_numbers(name, tmp_path, monkeypatch, capsys):
    """Bright and dark are told apart by any trained net: a label out of place, or an image read wrongly, is a
    wrong answer."""
    wanted, spelling, run = ALL[name][2], make(name, tmp_path), tmp_path / "run"
    monkeypatch.setattr("sys.argv", ["train", *QUICK, "--dataset", spelling, "--out", str(run)])
    assert train_main() == 0
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["clean_acc"], summary["test_images"]["used"]) == (1.0, wanted.test)
    shared = name in ("test images trained on", "one pixel")
    assert ("test images are training images too" in capsys.readouterr().out) == shared
    assert ("n_test_in_training" in summary) == shared
    assert evaluate_main([str(run), "--attacks", "clean", "--sanity-examples", "1"]) == 0
    report = json.loads((run / "evaluation.json").read_text())
    assert (report["attacks"]["clean"]["accuracy"], report["n"]) == (1.0, wanted.test)
    quick = ["--num-steps", "1", "--restarts", "1", "--resolution", "0.3"]
    assert explain_main([str(run), "0", *quick]) == 0
    assert report_main([str(run), "--out", str(tmp_path / "report"), "--no-png"]) == 0
    told = capsys.readouterr()
    assert "a bug of ours" not in told.err and "Traceback" not in told.err
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<script>alert" not in page and len(page) > 1000
