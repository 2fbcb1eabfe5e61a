"""Runs as they are read: whole, torn, unfinished; groups by everything but the seed."""

import json
import shutil

import pytest

from lasat_ray.errors import UserError
from lasat_ray.reporting.figures.cost import cost
from lasat_ray.reporting.figures.reward import reward
from lasat_ray.reporting.study import by_dataset, over_seeds, read_records, read_run, read_study


def test_runs_that_differ_in_the_seed_alone_are_one_group(runs):
    study = read_study(list(runs.values()))
    assert [(group.label, group.names) for group in study.groups] == [
        ("pgd-at learned", ("learned-0", "learned-1")),
        ("pgd-at fixed", ("fixed-0",)),
        ("pgd-at random", ("stopped",)),
    ]
    assert len({group.color for group in study.groups}) == 3
    assert [run.status for run in study.runs] == ["finished"] * 3 + ["unfinished: epoch 1 of 2"]


def test_what_tells_groups_apart_is_in_their_names(runs, tmp_path):
    for name, alpha in (("a", 1.0), ("b", 2.0)):
        shutil.copytree(runs["learned-0"], tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        config["reward"]["alpha"] = alpha
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    study = read_study([tmp_path / "a", tmp_path / "b"])
    assert [g.label for g in study.groups] == ["pgd-at learned, alpha 1.0", "pgd-at learned, alpha 2.0"]


def changed_copies(run, tmp_path, changes):
    for n, change in enumerate(changes):
        shutil.copytree(run, tmp_path / str(n))
        config = json.loads((tmp_path / str(n) / "config.json").read_text())
        (tmp_path / str(n) / "config.json").write_text(json.dumps(config | change))
    return read_study([tmp_path / str(n) for n in range(len(changes))])


def test_no_label_names_somebodys_disk(runs, tmp_path):
    changes = [
        {"dataset": "npz:/home/somebody/sets/shapes.npz"},
        {"dataset": "parquet:/mnt/cifar10", "init_from": "/home/somebody/runs/first"},
    ]
    study = changed_copies(runs["learned-0"], tmp_path, changes)
    assert [group.label for group in study.groups] == [
        "pgd-at learned, dataset shapes, init_from None",
        "pgd-at learned, dataset cifar10, init_from first",
    ]
    assert [(of, len(groups)) for of, groups in by_dataset(study.groups)] == [
        (", shapes", 1),
        (", cifar10", 1),
    ]
    assert [of for of, _ in by_dataset(study.groups[:1])] == [""]
    assert [panel.title for panel in cost(study).panels] == [
        f"{what}, {of}" for of in ("shapes", "cifar10") for what in ("Work an image", "Time so far")
    ]


@pytest.mark.parametrize(("second", "groups"), [("same", 1), ("another", 2)])
def test_arrays_that_each_run_keeps_for_itself_are_one_data_set(runs, tmp_path, second, groups):
    for name, digest in (("learned-0", "same"), ("learned-1", second)):
        path = tmp_path / name
        shutil.copytree(runs[name], path)
        config, manifest = (
            json.loads((path / f"{what}.json").read_text()) for what in ("config", "manifest")
        )
        config["dataset"], manifest["data"]["train_sha256"] = f"npz:{path / 'data.npz'}", digest
        (path / "config.json").write_text(json.dumps(config))
        (path / "manifest.json").write_text(json.dumps(manifest))
    study = read_study([tmp_path / "learned-0", tmp_path / "learned-1"])
    assert len(study.groups) == groups and study.groups[0].label.startswith("pgd-at learned")


def test_the_noise_that_a_standardized_reward_is_stays_away(runs, tmp_path):
    reward_of = json.loads((runs["learned-0"] / "config.json").read_text())["reward"]
    changes = [{"reward": {**reward_of, "standardize": on}} for on in (False, True)]
    panels = {
        panel.title: panel for panel in reward(changed_copies(runs["learned-0"], tmp_path, changes)).panels
    }
    assert len(panels["reward that is paid"].marks) == 1
    assert len(panels["L1, strength of the attack"].marks) == 2


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        ((545.2, 556.9), ["pgd-at learned"]),
        ((461.1, 525.6), ["pgd-at learned"]),
        ((350.0, 556.9), ["pgd-at learned, budget_passes 350", "pgd-at learned, budget_passes 557"]),
        ((0.0, 556.9), ["pgd-at learned, budget_passes 0", "pgd-at learned, budget_passes 557"]),
    ],
)
def test_seeds_whose_budgets_are_near_are_one_group(runs, tmp_path, budgets, told):
    """--compare gives each seed's rival what that seed's run spent."""
    for name, budget in zip(("learned-0", "learned-1"), budgets, strict=True):
        shutil.copytree(runs[name], tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "budget_passes": budget}))
    study = read_study([tmp_path / "learned-0", tmp_path / "learned-1"])
    assert [group.label for group in study.groups] == told


def test_a_torn_line_is_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"kind": "round", "round": 0}\nrubbish\n3\n{"kind": "round", "ro')
    assert read_records(file) == [{"kind": "round", "round": 0}]
    assert read_records(tmp_path / "absent") == []


def test_a_folder_that_is_no_run_or_stands_twice_is_told(runs, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="stands twice"):
        read_study([runs["fixed-0"], runs["fixed-0"]])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_run(tmp_path)


def test_seeds_are_averaged_where_all_of_them_have_come():
    x, mean, low, high = over_seeds([[(1, 1.0), (2, 2.0), (3, 9.0)], [(1, 3.0), (2, 2.0)], []])
    assert (x, mean) == ([1, 2], [2.0, 2.0])
    assert low == pytest.approx([2 - 2**0.5, 2.0]) and high == pytest.approx([2 + 2**0.5, 2.0])
