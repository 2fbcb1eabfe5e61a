"""The command lines: what sweeps are asked for, and what is refused in one line before anything starts."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from lasat_ray.config.config_file import spell_settings
from lasat_ray.errors import UsageError, UserError
from lasat_ray.recipes import get_recipe
from lasat_ray.tune import search_strategy, sweep_k, sweep_weights
from lasat_ray.tune.options import DEFINITION, parse_sweep
from lasat_ray.tune.search_strategy import SearchStrategy
from lasat_ray.tune.storage import Store
from lasat_ray.tune.sweep_k import SweepK
from lasat_ray.tune.sweep_weights import SweepWeights

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "sweep_k": (SweepK, sweep_k.sweep_of),
    "sweep_weights": (SweepWeights, sweep_weights.sweep_of),
    "search_strategy": (SearchStrategy, search_strategy.sweep_of),
}


def trials_of(command, *argv):
    settings, sweep_of = COMMANDS[command]
    return sweep_of(parse_sweep(argv, command, settings, "d"))({})


def test_table_1_seed_by_seed():
    trials = trials_of("sweep_k", "--seeds", "3", "4", "--ks", "1", "40")
    assert [t.row for t in trials] == ["PGD-AT", "k=1", "k=40"] * 2
    assert [t.config.seed for t in trials] == [3] * 3 + [4] * 3
    assert [t.config.update_interval for t in trials[1:3]] == [1, 40]
    assert [t.config.strategy for t in trials[:3]] == ["fixed", "learned", "learned"]
    assert all(t.timed for t in trials)


def test_a_file_of_settings_is_the_trials_and_flags_win(tmp_path):
    (tmp_path / "a.yaml").write_text("epochs: 3\noptim: {lr: 0.07}")
    words = ("--config", str(tmp_path / "a.yaml"), "--ks", "2")
    trials = trials_of("sweep_k", *words, "--optim.lr", "0.03")
    assert {(t.config.recipe, t.config.epochs, t.config.optim.lr) for t in trials} == {("digits", 3, 0.03)}
    (t, _) = trials_of("sweep_k", *words, "--recipe", "images")
    assert (t.config.recipe, t.config.epochs) == ("images", 3)
    (tmp_path / "b.yaml").write_text("ks: [2]")
    with pytest.raises(UsageError, match=r"b.yaml: ks: is an option of the command, not a setting"):
        trials_of("sweep_k", "--config", str(tmp_path / "b.yaml"))
    with pytest.raises(UsageError, match=r"--config: 'a.yaml' cannot be set with --resume"):
        trials_of("sweep_k", "--config", "a.yaml", "--resume", "x")


def test_a_strangers_run_as_a_file_needs_trust_for_its_code(tmp_path):
    config = dataclasses.replace(get_recipe("digits").config, model="evil:net")
    (tmp_path / "config.json").write_text(spell_settings(config, "json"))
    (tmp_path / "manifest.json").write_text("{}")
    words = ("--config", str(tmp_path / "config.json"), "--ks", "2")
    with pytest.raises(UsageError, match="its --model is code, 'evil:net'; if you trust it, add --trust"):
        trials_of("sweep_k", *words)
    assert trials_of("sweep_k", *words, "--trust")[0].config.model == "evil:net"
    assert trials_of("sweep_k", *words, "--model", "small_cnn")[0].config.model == "small_cnn"


def test_asha_leaves_the_timed_rows_alone():
    trials = trials_of("sweep_k", "--seeds", "0", "1", "--ks", "1", "--asha")
    assert [(t.row, t.config.seed) for t in trials if not t.timed] == [("k=1", 1)]


def test_table_6():
    trials = trials_of("sweep_weights", "--preset", "table6", "--reward.alpha", "2", "--reward.beta", "3")
    told = {t.row: (t.config.reward.alpha, t.config.reward.beta) for t in trials}
    assert told == {"L1": (0, 0), "L1+L2": (2, 0), "L1+L3": (0, 3), "L1+L2+L3": (2, 3)}


def test_a_grid_of_weights_and_optunas_first_generation():
    grid = trials_of("sweep_weights", "--alphas", "1", "2", "--betas", "0", "--seeds", "0", "1")
    assert [t.row for t in grid] == ["alpha=1 beta=0", "alpha=2 beta=0"] * 2
    argv = ("--search", "optuna", "--generation", "3", "--trials", "6", "--seeds", "0", "1")
    trials = trials_of("sweep_weights", *argv)
    assert len(trials) == 6 and [t.name for t in trials] == [
        t.name for t in trials_of("sweep_weights", *argv)
    ]
    assert all(0.25 <= t.info["alpha"] <= 4 for t in trials)


@pytest.mark.parametrize(
    ("command", "argv", "told"),
    [
        ("sweep_k", ["--ks", "0"], "--ks: [0] is out of range"),
        ("sweep_k", ["--ks", "2", "2"], "--ks: 2 stands twice"),
        ("sweep_k", ["--seeds", "1", "1"], "--seeds: 1 stands twice"),
        ("sweep_k", ["--seed", "3"], "--seed: '3' has no effect in this sweep"),
        ("sweep_k", ["--update-interval", "7"], "--update-interval: '7' has no effect"),
        ("sweep_k", ["--asha"], "--asha: the first seed is timed and never stopped"),
        ("sweep_k", ["--kss", "1"], "--kss: is not an option; did you mean --ks?"),
        ("sweep_k", ["--recipe", "digit"], "--recipe: 'digit' is unknown"),
        ("sweep_k", ["--max-concurrent", "0"], "--max-concurrent: 0 is out of range"),
        ("sweep_k", ["--gpus-per-trial", "1.5"], "--gpus-per-trial: 1.5 GPUs a process cannot be"),
        ("sweep_k", ["--accelerator-type", "L4"], "--accelerator-type: 'L4' has no effect on the processor"),
        ("sweep_k", ["--node-labels", "eu"], "--node-labels: 'eu' is no label; write KEY=VALUE"),
        (
            "sweep_k",
            ["--placement", "spread"],
            "--placement: 'spread' has no effect on trials of one",
        ),
        ("sweep_k", ["--gpus-per-trial", "1", "--num-workers", "2"], "2 workers cannot share a GPU"),
        (
            "sweep_k",
            ["--out", "s3://b/x", "--num-workers", "2"],
            "is a URL, but the workers of a trial share",
        ),
        ("sweep_k", ["--resume", "nowhere"], "--resume: 'nowhere' holds no sweep"),
        ("sweep_k", ["--resume-or-start"], "--resume-or-start: has no folder to come back to"),
        ("sweep_k", ["--out", str(ROOT)], "already exists; choose another, or continue it with --resume"),
        ("sweep_weights", ["--preset", "table6", "--reward.beta", "0"], "--preset: table6 needs weights"),
        ("sweep_weights", ["--reward.alpha", "2"], "--reward.alpha: '2.0' has no effect"),
        ("sweep_k", ["--trust"], "--trust: has nothing to trust without --resume"),
        ("sweep_k", ["--out", "memory://x"], "--out: 'memory://x' lies in the memory of one process"),
        ("sweep_weights", ["--preset", "table6", "--alphas", "1", "2"], "--alphas: '1 2' has no effect with"),
        ("sweep_weights", ["--preset", "table6", "--search", "optuna"], "--search: 'optuna' has no effect"),
        ("sweep_weights", ["--trials", "3"], "--trials: '3' has no effect in a grid"),
        (
            "search_strategy",
            ["--contenders", "tpe", "--pbt-interval", "1"],
            "--pbt-interval: '1' has no effect",
        ),
        ("search_strategy", ["--contenders", "pbt", "--generation", "3"], "--generation: '3' has no effect"),
        ("sweep_weights", ["--alphas=-1"], "--alphas: [-1.0] is out of range"),
        ("sweep_weights", ["--search", "optuna", "--alphas", "1"], "--alphas: [1.0] spans no range"),
        ("search_strategy", ["--contenders", "magic"], "--contenders: 'magic' is unknown"),
        ("search_strategy", ["--budget", "0"], "--budget: 0 is out of range"),
        ("search_strategy", ["--pbt-interval", "99"], "--pbt-interval: 99 is out of range"),
        ("search_strategy", ["--data.val-fraction", "0"], "leaves a search nothing to choose by"),
    ],
)
def test_what_cannot_be_is_one_line(command, argv, told):
    with pytest.raises(UsageError) as caught:
        trials_of(command, *argv)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_resumed_sweep_keeps_its_settings(tmp_path):
    argv = ["--ks", "1", "5", "--epochs", "3", "--out", str(tmp_path / "s")]
    first = parse_sweep(argv, "sweep_k", SweepK, "d")
    first.store.write_json(DEFINITION, {"definition": first.definition()})
    resume = ["--resume", str(tmp_path / "s"), "--max-concurrent", "2"]
    second = parse_sweep(resume, "sweep_k", SweepK, "d")
    assert second.definition() == first.definition() and second.settings.ks == (1, 5)
    assert [t.name for t in sweep_k.sweep_of(second)({})] == [t.name for t in sweep_k.sweep_of(first)({})]
    with pytest.raises(UsageError, match="a resumed sweep keeps its settings"):
        parse_sweep([*resume, "--ks", "1"], "sweep_k", SweepK, "d")
    with pytest.raises(UsageError, match="is a sweep_k; run python -m"):
        parse_sweep(resume, "sweep_weights", SweepWeights, "d")


@pytest.fixture(params=["path", "file"])
def place(request, tmp_path):
    return str(tmp_path / "s") if request.param == "path" else f"file://{tmp_path}/s"


def test_a_repeated_command_starts_a_sweep_and_then_finds_it(place):
    argv = ["--ks", "1", "5", "--epochs", "3", "--resume-or-start", "--out", place]
    first = parse_sweep(argv, "sweep_k", SweepK, "d")
    assert first.goes_on and not first.store.exists()
    first.store.write_json(DEFINITION, {"definition": first.definition()})
    again = parse_sweep([*argv, "--max-concurrent", "2"], "sweep_k", SweepK, "d")
    assert again.definition() == first.definition()
    told = f"is not what '{place}' was started with"
    with pytest.raises(UsageError, match=rf"--epochs: 4 {told} \(3\); give that, choose another --out"):
        parse_sweep([*argv, "--epochs", "4"], "sweep_k", SweepK, "d")
    with pytest.raises(UsageError, match=rf"--ks: 1 {told} \(1 5\)"):
        parse_sweep([*argv, "--ks", "1"], "sweep_k", SweepK, "d")
    with pytest.raises(UsageError, match=r"--out: .* is a sweep_k; run python -m"):
        parse_sweep(["--resume-or-start", "--out", place], "sweep_weights", SweepWeights, "d")


def test_a_sweep_of_before_a_setting_existed_is_the_same_sweep(place):
    argv = ["--ks", "1", "--resume-or-start", "--out", place]
    first = parse_sweep(argv, "sweep_k", SweepK, "d")
    definition = first.definition()
    del definition["config"]["budget_passes"]
    first.store.write_json(DEFINITION, {"definition": definition})
    assert parse_sweep(argv, "sweep_k", SweepK, "d").definition() == first.definition()
    assert parse_sweep(["--resume", place], "sweep_k", SweepK, "d").definition() == first.definition()


def test_trials_without_their_sweep_are_not_begun_over(place):
    argv = ["--resume-or-start", "--out", place]
    Store(place).write("trials/k-1/config.json", b"{}")
    with pytest.raises(UserError, match=r"has trials but its sweep\.json is gone; restore that from a copy"):
        parse_sweep(argv, "sweep_k", SweepK, "d")


def test_a_file_is_a_command_too_and_its_help_loads_neither_torch_nor_ray():
    code = "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_path(sys.argv[0], run_name='__main__')"
    for command in COMMANDS:
        script = f"import sys; sys.argv[0] = {str(ROOT / 'tuning' / command) + '.py'!r}\ntry:\n    {code}\n"
        script += "except SystemExit as stop:\n    assert not stop.code\n"
        script += "assert not {'torch', 'ray', 'matplotlib'} & set(sys.modules), 'too much was loaded'"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0 and "--max-concurrent" in done.stdout, done.stderr
