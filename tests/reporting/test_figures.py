"""What the figures say, against numbers found another way; plotly accepts every mark."""

import json
import math
import re
import shutil

import numpy as np
import plotly.graph_objects as go
import pytest

from lasat_ray.config.json_io import read_config
from lasat_ray.reporting.figures import FIGURES, draw_all
from lasat_ray.reporting.figures.compute import compute, passes_and_accuracy
from lasat_ray.reporting.figures.convergence import running_mean, slope
from lasat_ray.reporting.figures.cost import cost, passes
from lasat_ray.reporting.figures.distributions import distributions
from lasat_ray.reporting.figures.single_images import single_images
from lasat_ray.reporting.nets import LEVELS, evaluate_net_for_report, evaluate_nets_for_report
from lasat_ray.reporting.page import render_page
from lasat_ray.reporting.scores import pareto_front
from lasat_ray.reporting.study import read_study
from lasat_ray.reporting.tables import all_tables
from lasat_ray.reporting.to_plotly import to_plotly
from lasat_ray.update.cost import PARTS, counted_passes


@pytest.fixture(scope="module")
def study(runs, tmp_path_factory):
    told = []
    found = read_study(list(runs.values()))
    evaluate_nets_for_report(
        found, tmp_path_factory.mktemp("cache"), n_examples=32, trust=False, warn=told.append
    )
    assert not told
    return found


def test_every_figure_becomes_what_plotly_accepts(study):
    figures = draw_all(study)
    assert len(figures) == len(FIGURES) == len({figure.slug for figure in figures})
    for figure in figures:
        assert figure.rows()
        for panel in figure.panels:
            spec = json.loads(json.dumps(to_plotly(panel), allow_nan=False))
            assert len(go.Figure(spec).data) == len(spec["data"]) >= 1
            assert all(trace["meta"]["runs"] for trace in spec["data"])


def test_the_page_has_a_menu_and_a_legend_of_every_line(study):
    figures, tables = draw_all(study), all_tables(study)
    page = render_page(study, tables, figures, {"title": "T", "when": "now", "version": "1"})
    for part in [*figures, *tables]:
        assert page.count(f"<a href='#{part.slug}'>") == 1 and f"<section id='{part.slug}'>" in page
    (legend,) = re.findall(r"<section id='cost'>.*?<p class='keys'>(.*?)</p>", page, flags=re.S)
    named = re.findall(r"</i>([^<]+)</span>", legend)
    assert named == [*PARTS, *(group.label for group in study.groups)]
    (legend,) = re.findall(r"<section id='figure-1.*?<p class='keys'>(.*?)</p>", page, flags=re.S)
    assert "class='dash'" in legend and "class='solid'" in legend and "seed 1" not in legend


def test_a_run_that_has_only_begun_is_drawn_as_far_as_it_came(runs):
    study = read_study([runs["stopped"]])
    slugs = {figure.slug for figure in draw_all(study)}
    assert {"figure-1-robust-overfitting", "theorem-1", "cost"} <= slugs and "pareto" not in slugs
    (table,) = all_tables(study)
    assert "unfinished" in table.lines[0].label and set(table.columns) == {"time_min"}


def test_compute_is_counted_to_the_end_of_every_validated_epoch(study):
    run = study.groups[0].runs[0]
    config = read_config(run.path / "config.json")
    found = passes_and_accuracy(run, "robust")
    epochs = [record for record in run.of("epoch") if any(k.startswith("val_robust") for k in record)]
    assert len(found) == len(epochs) > 1
    for (spent, accuracy), record in zip(found, epochs, strict=True):
        until = [r for r in run.of("round") if r["round"] < record["round"]]
        images = run.summary["passes"] / run.summary["passes_per_image"]
        target, strategy = counted_passes(config, until)
        assert spent == pytest.approx((target + run.summary["strategy_pass"] * strategy) / images)
        assert accuracy == 100 * next(v for k, v in record.items() if k.startswith("val_robust"))
    assert found[-1][0] == pytest.approx(run.summary["passes_per_image"])


def test_compute_reads_seeds_off_at_equal_passes(study):
    group = next(group for group in study.groups if len(group.runs) > 1)
    curve = next(mark for mark in compute(study).panels[0].marks if mark.name == group.label)
    series = [dict(passes_and_accuracy(run, "robust")) for run in group.runs]
    assert curve.x[-1] == pytest.approx(min(max(pairs) for pairs in series))
    ends = [np.interp(curve.x[-1], list(pairs), list(pairs.values())) for pairs in series]
    assert curve.y[-1] == pytest.approx(np.mean(ends))


def test_distributions_are_the_recorded_counts(study):
    heat = distributions(study).panels[0].marks[0]
    z = np.array(heat.z)
    records = [record for run in study.groups[0].runs for record in run.of("epoch") if record["epoch"] == 1]
    counts = np.sum([record["options"]["eps"] for record in records], axis=0)
    assert z[:, 0] == pytest.approx(100 * counts / counts.sum()) and z.sum(0) == pytest.approx(100)


def test_single_images_show_the_mean_of_the_recorded_shares(study):
    figure = single_images(study)
    assert len(figure.panels) == 8 and all(panel.picture.shape == (1, 8, 8) for panel in figure.panels)
    share = study.groups[0].runs[0].of("probe")[0]["share"]["eps"][3]
    assert figure.panels[3].marks[0].y[0] == pytest.approx(np.dot(share, [0.1, 0.2, 0.3]))


def test_theorem_1_is_the_running_mean_of_squares(study):
    run = study.runs[0]
    norms = [record["grad_norm"] for record in run.of("round")]
    assert running_mean(run)[2] == (3, pytest.approx(sum(norm**2 for norm in norms[:3]) / 3))
    x = [float(n) for n in range(1, 100)]
    assert slope(x, [5 / math.sqrt(t) for t in x]) == pytest.approx(-0.5)


def test_the_front_is_what_nothing_beats_in_both():
    points = [(1, 5), (2, 4), (2, 3), (0, 6), (1.5, 3.5)]
    assert [points[n] for n in pareto_front(points)] == [(0, 6), (1, 5), (2, 4)]


def test_passes_follow_the_cost_model(study):
    learned, fixed, _ = study.groups
    assert passes(fixed) == {
        "attack": 4.0,  # two steps
        "target update": 3.0,
        "reference attack": 0.0,
        "rest of the reward": 0.0,
        "strategy net": 0.0,
    }
    drawn, config = passes(learned), read_config(learned.runs[0].path / "config.json")
    rounds = [record for run in learned.runs for record in run.of("round")]
    target, strategy = counted_passes(config, rounds)  # checked against nets that count
    assert drawn["strategy net"] == pytest.approx(strategy / (32 * len(rounds)))
    assert sum(drawn.values()) == pytest.approx((target + strategy) / (32 * len(rounds)))


def test_influence_shares_the_rewards_passes_and_outside_methods_are_not_counted(runs, tmp_path):
    found = []
    for change in ({"reward": "influence"}, {"method": "examples.own_method:METHOD"}):
        path = tmp_path / str(len(found))
        shutil.copytree(runs["learned-0"], path)
        config = json.loads((path / "config.json").read_text())
        config["reward"]["credit"] = change.get("reward", "image")
        config["method"] = change.get("method", "pgd-at")
        (path / "config.json").write_text(json.dumps(config))
        found.append(path)
    influence, outside = read_study(found).groups
    # L2 and L3 a pass each and back to the weights (2 each), and one forward-mode pass.
    assert passes(influence)["rest of the reward"] == pytest.approx(2 + 2 * 2 + 1)
    assert passes(outside) == {}
    (panel,) = cost(read_study(found[1:])).panels
    assert panel.title == "Time so far"


def test_tables_hold_the_summaries_mean_and_deviation(study):
    (table,) = all_tables(study)
    line = table.lines[0]
    found = [100 * run.summary["clean_acc"] for run in study.groups[0].runs]
    assert line.values["clean"] == pytest.approx(np.mean(found)) and "2 seeds" in line.label
    assert line.shown["clean"] == f"{np.mean(found):.1f} ± {np.std(found, ddof=1):.1f}"
    best = max(table.lines[0].values["clean"], table.lines[1].values["clean"])
    assert table.best("clean", "measured") == best and table.best("clean", "reported") is None


def test_reported_rows_stand_apart_and_changes_are_told(runs, tmp_path):
    shutil.copytree(runs["fixed-0"], tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["recipe"] = "table6-cifar10-resnet18-las-at-l1"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    (table,) = all_tables(read_study([tmp_path / "run"]))
    reported = [line for line in table.lines if line.source == "reported"]
    assert len(reported) == 4 and reported[-1].values == {"clean": 82.3, "pgd10": 54.29, "aa": 49.89}
    assert [list(line.checks.values()) for line in reported][1] == [True, True, False]
    assert table.best("aa", "reported") == 49.89 and table.title.startswith("Table 6")
    assert any("not the published run" in note and "epochs" in note for note in table.notes)


def test_a_net_is_asked_once_and_accuracy_never_rises_with_eps(study, tmp_path, monkeypatch):
    run = study.runs[0]
    facts = study.nets[run.name]
    assert len(facts["eps"]) == len(facts["accuracy"]) == len(LEVELS) + 1
    assert facts["accuracy"] == sorted(facts["accuracy"], reverse=True)
    y, clean, attacked = (np.array(facts[name]) for name in ("y", "predicted", "predicted_adv"))
    own = facts["eps"].index(pytest.approx(run.config["evaluation"]["eps"]))
    assert facts["accuracy"][0] == pytest.approx((clean == y).mean())
    assert facts["accuracy"][own] == pytest.approx((attacked == y).mean())
    again = read_study([run.path])
    for _ in range(2):
        evaluate_nets_for_report(again, tmp_path, n_examples=32, trust=False, warn=pytest.fail)
        assert again.nets[run.name]["accuracy"] == facts["accuracy"]
        monkeypatch.setattr(
            "lasat_ray.reporting.nets.evaluate_net_for_report", lambda *args: pytest.fail("asked twice")
        )


def test_gallery_images_stay_within_the_chosen_budget(study):
    gallery = evaluate_net_for_report(study.runs[2], 8, trust=False)["gallery"]
    x, x_adv = gallery["x"].int(), gallery["x_adv"].int()
    assert 0 < int((x_adv - x).abs().max()) <= round(0.2 * 255)
    assert gallery["strategy"][0] == "eps 0.2, num_steps 2, step_size 0.1"
