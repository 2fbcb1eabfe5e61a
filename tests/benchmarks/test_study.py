"""Studies go on from what is recorded: nothing twice, nothing lost, nothing of other settings taken."""

import json
from dataclasses import asdict

import pytest

from benchmarks.studies import study
from benchmarks.studies.outcomes import settings_key, slim
from benchmarks.studies.study import Judge, RunOptions, Trial, seed_after_seed

JUDGE = Judge()
SUMMARY = {"rounds": 1, "train_seconds": 1.0, "n_train": 1, "parameters": 1}


def outcome(trial: Trial, judge: Judge = JUDGE) -> dict:
    asked = json.loads(json.dumps({"trial": asdict(trial), "judge": asdict(judge)}))
    return {**asked, "evaluation": {}, "passes_per_image": 23.0, "epochs": [], "summary": SUMMARY}


def seed(n: int) -> list[Trial]:
    flags = ("--dataset", "parquet:/here/cifar10")
    return [
        Trial(label="teacher", flags=flags, seed=n),
        Trial(label="pupil", flags=flags, seed=n, teacher="teacher"),
        Trial(label="alone", flags=flags, seed=n),
    ]


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """Names of the trials that were really run."""
    names: list[str] = []

    def run(trials, judge, out, jobs):
        names.extend(trial.name for trial in trials)
        return [outcome(trial) for trial in trials]

    monkeypatch.setattr(study, "run_study", run)
    return names


def names(outcomes) -> list[str]:
    return [f"{o['trial']['label']}-s{o['trial']['seed']}" for o in outcomes]


def test_recorded_runs_are_not_run_again_and_stay_in_the_record(tmp_path, ran):
    record = tmp_path / "record.json"
    later = [slim(outcome(trial)) for trial in seed(1)]
    record.write_text(json.dumps({"runs": [*later, slim(outcome(seed(0)[2]))]}))
    first, second = seed_after_seed([seed(0), seed(1)], JUDGE, RunOptions(), record)
    assert ran == ["teacher-s0", "pupil-s0"]
    every = [trial.name for n in (0, 1) for trial in seed(n)]
    assert names(first) == names(second) == every, "a later seed's runs must not fall out on the way"
    assert [slim(slim(o)) for o in second] == [slim(o) for o in second]


def test_a_recorded_teacher_is_trained_again_for_a_pupil_that_is_missing(tmp_path, ran):
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"runs": [slim(outcome(t)) for t in seed(0) if t.label != "pupil"]}))
    list(seed_after_seed([seed(0)], JUDGE, RunOptions(), record))
    assert ran == ["teacher-s0", "pupil-s0"]


def test_a_record_names_the_data_set_and_not_where_it_lay():
    kept = slim(outcome(seed(0)[2]))
    assert kept["trial"]["flags"] == ["--dataset", "parquet:cifar10"]
    assert kept["key"] == settings_key(asdict(seed(0)[2]), asdict(JUDGE))


def test_other_settings_or_judges_are_other_runs(tmp_path, ran):
    trial = seed(0)[2]
    elsewhere = Trial(label="alone", flags=("--dataset", "parquet:/there/cifar10"), seed=0)
    longer = Trial(label="alone", flags=(*trial.flags, "--epochs", "9"), seed=0)
    key = settings_key(asdict(trial), asdict(JUDGE))
    assert settings_key(asdict(elsewhere), asdict(JUDGE)) == key, "one data set in two places"
    assert settings_key(asdict(longer), asdict(JUDGE)) != key
    assert settings_key(asdict(trial), asdict(Judge(n_autoattack=7))) != key
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"runs": [slim(outcome(longer)), {"trial": {"label": "alone", "seed": 0}}]}))
    (found,) = seed_after_seed([[trial]], JUDGE, RunOptions(), record)
    assert ran == ["alone-s0"] and found == [outcome(trial)]
