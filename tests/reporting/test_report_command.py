"""The report command: one page with everything inside, and PNG and CSV beside it."""

import csv
import re

import pytest

from lasat_ray.report import main
from lasat_ray.reporting.figures import FIGURES


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "out"
    assert main([*map(str, runs.values()), "--out", str(out), "--n-examples", "16", "--title", "T < 1"]) == 0
    return out


def test_the_page_holds_everything_and_names_nothing_elsewhere(report):
    page = (report / "report.html").read_text()
    assert len(page) < 4_000_000 and "T &lt; 1" in page
    assert not re.findall(r"(?:src|href)=['\"]https?:", page)
    for name in ("learned-0", "learned-1", "fixed-0", "stopped"):
        assert page.count(f">{name}</b>") == 1


def test_every_figure_has_a_png_and_a_csv_with_rows(report):
    names = {path.stem for path in report.glob("*.png")}
    assert len(names) == len(FIGURES)
    for name in names | {"table-measured"}:
        rows = list(csv.DictReader((report / f"{name}.csv").open()))
        assert rows, name


def test_without_nets_nothing_is_loaded(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lasat_ray.api.reporting.evaluate_nets_for_report", lambda *a, **k: pytest.fail("asked")
    )
    assert main([str(runs["learned-0"]), "--out", str(tmp_path), "--no-net", "--no-png"]) == 0
    assert not list(tmp_path.glob("*.png")) and (tmp_path / "theorem-1.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "RUN is missing"),
        (["nowhere", "--out", "x"], "'nowhere' holds no run"),
        (["nowhere", "--n-examples", "0"], "--n-examples: 0 is out of range"),
        (["nowhere", "--n-example", "3"], "did you mean --n-examples?"),
    ],
)
def test_a_bad_call_is_one_line_and_writes_nothing(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) in (1, 2)
    assert told in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_run_whose_net_is_gone_is_reported_without_it(runs, tmp_path, capsys):
    import shutil

    shutil.copytree(runs["fixed-0"], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--no-png"]) == 0
    assert "its net is left out" in capsys.readouterr().err
    assert not (tmp_path / "out" / "confusion-under-attack.csv").exists()
