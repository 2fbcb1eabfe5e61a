"""One table from many evaluations: order, published rows, and what is not an evaluation."""

import json

import pytest

from lasat_ray.api.commands.leaderboard import find_reports, measured_row, ranked, reported_rows
from lasat_ray.errors import UserError
from lasat_ray.leaderboard import main
from tests.support.published_rows import LEADERBOARDS, ROBUSTBENCH, TABLES


def write(folder, *, aa=None, clean=0.8, verdict="passed", dataset="cifar10", eps=8 / 255, **more):
    folder.mkdir(parents=True)
    attacks = {"clean": {"accuracy": clean}} | (
        {"aa": {"accuracy": aa, "eps": eps, "norm": "linf"}} if aa is not None else {}
    )
    report = {"attacks": attacks, "n": 1000, "dataset": dataset, "sanity": {"verdict": verdict}, **more}
    (folder / "evaluation.json").write_text(json.dumps(report))
    return folder


@pytest.fixture
def three(tmp_path):
    write(tmp_path / "a", aa=0.52, method="ours", architecture="ResNet-18", extra_data=False)
    write(tmp_path / "b", aa=0.571, method="best", architecture="WideResNet-34-10", extra_data=True)
    write(tmp_path / "c", aa=None, method="no aa", verdict="unreliable")
    return tmp_path


def test_rows_are_ranked_by_autoattack_among_the_published_ones(three, capsys):
    assert main([str(three), "--out", str(three / "table.json")]) == 0
    rows = json.loads((three / "table.json").read_text())["cifar10"]
    assert [row["rank"] for row in rows] == [*range(1, len(rows)), None]
    assert [row["aa"] for row in rows[:-1]] == sorted((row["aa"] for row in rows[:-1]), reverse=True)
    places = {row["method"]: row for row in rows}
    assert places["best"]["source"] == "measured"
    before = rows[places["best"]["rank"] - 2]
    assert (before["published_rank"], before["aa"]) == (31, pytest.approx(0.5714))  # HYDRA's
    las = next(row for row in rows if row["published_rank"] == 37)
    assert (las["clean"], las["aa"]) == (pytest.approx(0.8498), pytest.approx(0.5626))
    assert (las["source"], las["architecture"], las["extra_data"]) == ("reported", "WideResNet-34-10", False)
    assert rows[-1]["method"] == "no aa" and rows[-1]["unreliable"]
    shown = capsys.readouterr().out
    assert "cifar10: accuracy under AutoAttack" in shown


def test_the_shape_of_the_published_leaderboards(three, capsys):
    assert main([str(three / "a"), "--out", str(three / "t.md")]) == 0
    lines = (three / "t.md").read_text().splitlines()
    assert (
        lines[2]
        == "| rank | method | clean | AA | worst case | unreliable | extra data | architecture | source |"
    )
    assert any(
        "| ours | 80.00 % | 52.00 % |  | no | no | ResNet-18 | measured, n = 1000 |" in line for line in lines
    )


def test_reported_rows_are_the_published_ones():
    rows = reported_rows()
    count = len(LEADERBOARDS) + len(TABLES)
    assert len(rows) == count + len(ROBUSTBENCH)
    for row, (dataset, venue, architecture, clean, aa, worst) in zip(rows[count:], ROBUSTBENCH, strict=True):
        assert (row.dataset, row.architecture, row.source) == (dataset, architecture, "reported")
        assert row.venue == venue and row.method.endswith(venue)
        assert [100 * row.clean, 100 * row.aa] == pytest.approx([clean, aa], abs=1e-9)
        assert row.worst == (None if worst is None else pytest.approx(worst / 100))
    for row in rows[:count]:
        found = [row.clean * 100, row.aa * 100]
        if row.published_rank:
            *numbers, architecture, extra_data = LEADERBOARDS[row.dataset, row.published_rank]
            assert row.venue and len(row.method) > 40  # a title
        else:
            *numbers, architecture = TABLES[row.dataset, row.method]
            extra_data = False
        assert found == pytest.approx(numbers, abs=1e-9)
        assert (row.architecture, row.extra_data, row.source) == (architecture, extra_data, "reported")


def test_measured_rows_alone(three):
    rows = ranked([measured_row(file) for file in find_reports([three])], "cifar10", reported=False)
    assert [row.method for row in rows] == ["best", "ours", "no aa"]


def test_another_budget_is_out_of_competition(tmp_path, capsys):
    write(tmp_path / "a", aa=0.9, eps=4 / 255, method="half the budget")
    write(tmp_path / "b", aa=0.9, eps=0.031, method="rounded budget")
    assert main([str(tmp_path), "--out", str(tmp_path / "t.json")]) == 0
    rows = json.loads((tmp_path / "t.json").read_text())["cifar10"]
    assert (rows[0]["rank"], rows[0]["method"]) == (1, "rounded budget")
    assert (rows[-1]["rank"], rows[-1]["method"], rows[-1]["budget"]) == (
        None,
        "half the budget",
        "linf 4/255",
    )


def test_data_sets_are_kept_apart(tmp_path, capsys):
    write(tmp_path / "a", aa=0.5, dataset="digits", method="small")
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "digits: " in shown and "reported" not in shown


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ([], 2, "PATH is missing"),
        (["EMPTY"], 1, "holds no evaluation.json"),
        (["--dataset", "mnist"], 1, "nothing is known of 'mnist'; published rows exist for cifar10"),
        (["--dataset", "cifar10", "--out", "x.csv"], 2, "neither NAME.json nor NAME.md"),
    ],
)
def test_faults_are_one_line(tmp_path, capsys, words, status, told):
    assert main([str(tmp_path) if word == "EMPTY" else word for word in words]) == status
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"attacks": 3}'])
def test_a_file_that_is_no_evaluation_is_named(tmp_path, content):
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(UserError, match="not an evaluation"):
        measured_row(tmp_path / "evaluation.json")
