"""Flags become a config; whatever is wrong is one line with option, value and remedy."""

import importlib
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from lasat_ray import evaluate, explain, export, leaderboard, predict, report
from lasat_ray.__main__ import GROUPS, purpose, render_commands
from lasat_ray.__main__ import main as list_commands
from lasat_ray.api.commands.evaluate import parse_evaluate
from lasat_ray.api.reporting import ReportOptions
from lasat_ray.cli import command
from lasat_ray.cli.command import run_command
from lasat_ray.cli.parsing import parse
from lasat_ray.cli.run_options import (
    RunOptions,
    check_run,
    parse_train,
    render_config,
    render_recipes,
)
from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import write_config
from lasat_ray.errors import UsageError, UserError
from lasat_ray.recipes import DEFAULT, RECIPES, get_recipe
from lasat_ray.tune import search_strategy, sweep_k, sweep_weights


def test_without_flags_it_is_the_default_recipe_in_this_process():
    config, options = parse_train([])
    assert config == RECIPES["digits-rate"].config
    assert options == RunOptions()


def test_everyday_flags_and_groups_meet_in_one_line():
    line = (
        "--num-workers 4 --attack.eps 4/255 --attack.grid 'eps=1..3/255' --reward.alpha 2 --data.flip --debug"
    )
    config, options = parse_train(shlex.split(line))
    assert options == RunOptions(num_workers=4, debug=True)
    assert config.attack.eps == 4 / 255
    assert config.attack.grid == {"eps": (1 / 255, 2 / 255, 3 / 255)}
    assert config.reward.alpha == 2.0
    assert config.data.flip


@pytest.mark.parametrize("line", ["--recipe NAME", "--recipe=NAME", "--recipe digits --recipe NAME"])
def test_a_recipe_gives_the_defaults_and_flags_override_them(line):
    name = "table1-cifar10-resnet18-las-at-k40"
    config, _ = parse_train([*line.replace("NAME", name).split(), "--seed", "7"])
    assert config == replace(RECIPES[name].config, seed=7)


@pytest.mark.parametrize("line", ["-k 40", "-k=40", "--update-interval 40", "--update_interval=40"])
def test_k_has_its_short_name(line):
    assert parse_train(line.split())[0].update_interval == 40


@pytest.mark.parametrize("line", ["--credit image", "--credit=image", "--reward.credit image"])
def test_credit_has_its_short_name(line):
    assert parse_train(line.split())[0].reward.credit == "image"


def test_a_resumed_run_takes_its_own_settings(tmp_path):
    saved = replace(RECIPES["gtsrb-las-at"].config, seed=5)
    write_config(saved, tmp_path / "config.json")
    config, options = parse_train(["--resume", str(tmp_path), "--epochs", "120"])
    assert config == replace(saved, epochs=120)
    assert options.resume == str(tmp_path)
    with pytest.raises(UsageError, match="--recipe: 'digits' cannot be set with --resume"):
        parse_train(["--resume", str(tmp_path), "--recipe", "digits"])
    with pytest.raises(UserError, match=r"absent/config\.json: cannot be read"):
        parse_train(["--resume", str(tmp_path / "absent")])


BAD_LINES = [
    ("--nm-workers 3", "--nm-workers: is not an option; did you mean --num-workers?"),
    ("--alpha 3", "--alpha: is not an option; did you mean --reward.alpha?"),
    ("--reward.alhpa=3", "--reward.alhpa: is not an option; did you mean --reward.alpha?"),
    ("--lr 1", "--lr: is not an option; did you mean --optim.lr or --policy.lr?"),
    ("--eps 8/255", "--eps: is not an option; did you mean --attack.eps or --evaluation.eps?"),
    ("--workers 2", "--workers: is not an option; did you mean --num-workers or --min-workers?"),
    ("--steps=10", "--steps: is not an option; did you mean --attack.num-steps or --reward.ref-num-steps?"),
    ("--batch 64", "--batch: is not an option; did you mean --batch-size or --evaluation.batch-size?"),
    ("--gpus 1", "--gpus: is not an option; did you mean --gpus-per-worker?"),
    ("--optim.lrr 1", "--optim.lrr: is not an option; did you mean --optim.lr?"),
    ("--zzzz", "--zzzz: is not an option; --help shows all options"),
    ("-z", "-z: is not an option; --help shows all options"),
    ("--device tpu", "--device: 'tpu' is not accepted; give one of: auto, cpu, cuda"),
    (
        "--strategy=best",
        "--strategy: 'best' is not accepted; give one of: learned, class-wise, random, "
        "fixed, curriculum, margin",
    ),
    ("--epochs ten", "--epochs: 'ten' is not accepted; give a whole number"),
    ("--epochs 1.5", "--epochs: '1.5' is not accepted; give a whole number"),
    ("--reward.alpha x", "--reward.alpha: 'x' is not accepted; give a number"),
    ("--data.max-train x", "--data.max-train: 'x' is not accepted; give a whole number or None"),
    ("--attack.eps 8/0", "--attack.eps: '8/0' is not a budget; write it as 8/255 or 0.031"),
    ("--attack.start-radius q", "--attack.start-radius: 'q' is not a budget; write it as 8/255 or 0.031"),
    (
        "--attack.grid eps=0.1 eps=0.2",
        "--attack.grid: 'eps=0.2' is one value too many; give 'eps=3..15/255 ...', quoted",
    ),
    ("--attack.grid eps", "--attack.grid: 'eps' is not FIELD=VALUES; write for example eps=3..15/255"),
    ("--epochs", "--epochs: its value is missing; give a whole number"),
    ("--epochs --seed 3", "--epochs: its value is missing; give a whole number"),
    ("--attack.eps", "--attack.eps: its value is missing; give N/255, for example 8/255"),
    ("--recipe", "--recipe: its value is missing; give a name or path"),
    ("--recipe digit", "--recipe: 'digit' is unknown; did you mean digits? --list-recipes shows all"),
    ("--epochs 1 2", "--epochs: '2' is one value too many; give a whole number"),
    ("--dry-run 3", "--dry-run: '3' is one value too many; give no value"),
    ("hello", "'hello' follows no option; write for example --epochs 30"),
    (
        "--optim.milestones 1 x",
        "--optim.milestones: '1 x' is not accepted; give a number or several separated by spaces",
    ),
]


@pytest.mark.parametrize(("line", "told"), BAD_LINES)
def test_a_bad_line_is_told_in_one_line(line, told, capsys):
    with pytest.raises(UsageError) as caught:
        parse_train(line.split())
    assert str(caught.value) == told
    assert caught.value.status == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", RECIPES)
def test_the_printed_settings_read_back(name):
    config = RECIPES[name].config
    assert parse_train(shlex.split(render_config(config)))[0] == config


def test_the_printed_settings_are_spelled_as_flags():
    text = render_config(RECIPES["table2-cifar10-wrn34-10-pgd-at"].config)
    lines = text.splitlines()
    assert "--attack.eps 8/255" in lines
    assert "--optim.milestones 99.0 104.0" in lines
    assert "--reward.no-standardize" in lines


def test_help_fits_and_shows_groups_units_and_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        parse_train(["--help-all"])
    assert not stop.value.code
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 100
    for group in ("data", "attack", "loss", "reward", "policy", "optim", "evaluation"):
        assert f"{group} options" in text
    assert re.search(r"--num-workers INT\s+Ray Train workers; 0 trains in this process", text)
    assert "in [0,1] pixels" in text
    assert f"(default: {RECIPES[DEFAULT].config.epochs})" in text


HELP = {
    "lasat_ray.train": lambda: parse_train(["--help"]),
    "lasat_ray.evaluate": lambda: evaluate.main(["--help"]),
    "lasat_ray.leaderboard": lambda: leaderboard.main(["--help"]),
    "lasat_ray.report": lambda: report.main(["--help"]),
    "lasat_ray.explain": lambda: explain.main(["--help"]),
    "lasat_ray.predict": lambda: predict.main(["--help"]),
    "lasat_ray.export": lambda: export.main(["--help"]),
    "lasat_ray.tune.sweep_k": lambda: sweep_k.main(["--help"]),
    "lasat_ray.tune.sweep_weights": lambda: sweep_weights.main(["--help"]),
    "lasat_ray.tune.search_strategy": lambda: search_strategy.main(["--help"]),
}


@pytest.mark.parametrize("command", HELP)
def test_help_of_a_command_shows_what_is_asked_for_every_day(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    told = {}
    for asked in ("--help", "--help-all"):
        monkeypatch.setattr("sys.argv", [command, asked])
        with pytest.raises(SystemExit):
            importlib.import_module(command).main()
        told[asked] = capsys.readouterr().out
    short, whole = told["--help"], told["--help-all"]
    assert len(short.splitlines()) <= 100
    options = {asked: set(re.findall(r"^[│ ] (--[\w.-]+)", text, flags=re.M)) for asked, text in told.items()}
    if len(whole.splitlines()) <= 60:  # few enough to be shown at once
        assert short == whole
    else:
        assert "--help-all shows every one" in short and "--help-all" not in whole
        assert 5 < len(options["--help"]) < len(options["--help-all"]) / 2
    assert options["--help"] <= options["--help-all"]


@pytest.mark.parametrize("command", HELP)
def test_help_fits_eighty_columns_and_says_what_a_default_is(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        HELP[command]()
    text = capsys.readouterr().out
    assert f"usage: python -m {command}" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "(default: )" not in text and "STR [STR ...]]]" not in text.partition("options")[0]
    # An option's words run on to the edge: no line ends early because the docstring broke there.
    assert not [
        line for line in text.splitlines() if re.search(r"[a-z,]\s{20,}│$", line) and "--" not in line
    ]


def test_the_list_begins_with_what_it_is_for_and_three_commands_that_are_right(monkeypatch):
    text = render_commands(80)
    assert text.startswith("lasat-ray trains image classifiers that withstand attacks")
    first = [shlex.split(line) for line in text.splitlines() if line.startswith("  python -m")]
    assert [words[2] for words in first] == [f"lasat_ray.{name}" for name in ("train", "evaluate", "report")]
    assert parse_train(first[0][3:])[1].out == "runs/first"
    assert parse_evaluate(first[1][3:]).attacks == ("clean", "fgsm", "pgd-10")
    asked = parse(ReportOptions, first[2][3:], prog="report", description="")
    assert asked.runs == ("runs/first",) and asked.out == "runs/report"


def test_the_list_of_commands_names_every_command(capsys):
    assert set(HELP) == {name for names in GROUPS.values() for name in names}
    text = render_commands(80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert all(purpose(name) for name in HELP) and all(f"  {name}\n    " in text for name in HELP)
    assert list_commands(["train"]) == 2 and "python -m lasat_ray.train" in capsys.readouterr().err


def test_the_recipe_table_shows_names_sources_and_numbers():
    console = Console(width=80)
    with console.capture() as capture:
        console.print(render_recipes())
    text = capture.get()
    assert all(name in text for name in RECIPES)
    assert "NAME-rate" in text
    assert "Table 1, LAS-AT (k=40)" in text
    assert "clean 82.3, pgd10 54.29" in text


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (UsageError("--k: 0 is wrong; give 1"), 2, "lasat-ray: error: --k: 0 is wrong; give 1\n"),
        (UserError("two\n  lines"), 1, "lasat-ray: error: two lines\n"),
        (KeyboardInterrupt(), 130, "lasat-ray: error: interrupted\n"),
        (RuntimeError("odd"), 1, "lasat-ray: error: RuntimeError: odd (a bug of ours; "),
    ],
)
def test_a_failing_command_says_one_line_and_its_status(error, status, told, capsys, monkeypatch):
    monkeypatch.setattr(command, "blamed", lambda error: None)  # this file stands for one of ours
    assert run_command(lambda: _raise(error), debug=False) == status
    shown = capsys.readouterr().err
    assert shown.startswith(told)
    assert shown.count("\n") == 1
    assert run_command(lambda: _raise(error), debug=True) == status
    assert "Traceback" in capsys.readouterr().err


def test_a_command_that_succeeds_says_nothing(capsys):
    assert run_command(lambda: 0) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (RunOptions(num_workers=-1), "--num-workers: -1 is out of range; give 0 or more"),
        (RunOptions(cpus_per_worker=0.0), "--cpus-per-worker: 0 is out of range"),
        (RunOptions(max_failures=-1), "--max-failures: -1 is out of range"),
        (RunOptions(start_timeout=float("nan")), "--start-timeout: nan is out of range"),
        (RunOptions(num_workers=129), "--batch-size: 128 images cannot feed 129 workers"),
        (RunOptions(out="a", resume="b"), "--out: 'a' cannot be set with --resume"),
        (RunOptions(compare="pgd"), "--compare: 'pgd' is unknown; choose one of: pgd-at"),
    ],
)
def test_run_options_that_cannot_work_are_refused(options, told):
    with pytest.raises(UsageError) as caught:
        check_run(RECIPES["digits"].config, options, ["pgd-at"])
    assert str(caught.value).startswith(told)


def test_good_run_options_pass():
    check_run(TrainConfig(), RunOptions(num_workers=4, compare="pgd-at", cpus_per_worker=0.5), ["pgd-at"])


@dataclass(frozen=True, kw_only=True)
class _Other:
    run: str
    """A required option."""
    restarts: int = 1


def test_other_commands_can_share_the_parser():
    told = {"prog": "evaluate", "description": "Another command."}
    assert parse(_Other, ["--run", "a"], **told) == _Other(run="a")
    with pytest.raises(UsageError, match="--run: its value is missing; give a name or path"):
        parse(_Other, [], **told)
    with pytest.raises(UsageError, match="--restart: is not an option; did you mean --restarts"):
        parse(_Other, ["--run", "a", "--restart", "3"], **told)


def test_settings_are_read_and_shown_without_torch_or_ray():
    program = """if True:
        import sys
        from lasat_ray.cli.run_options import check_run, parse_train, render_config, render_recipes
        from lasat_ray.validation import check
        config, options = parse_train(["--recipe", "gtsrb-las-at", "-k", "20"])
        check(config), check_run(config, options), render_config(config), render_recipes()
        try:
            parse_train(["--help"])
        except SystemExit:
            pass
        heavy = {"torch", "ray", "torchvision", "numpy", "sklearn"} & set(sys.modules)
        sys.exit(", ".join(heavy) or 0)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["--out", "s3://bucket/x"]),
        ("evaluate", ["RUN", "--out", "gs://bucket/x"]),
        ("report", ["RUN", "--no-net", "--out", "s3://bucket/x"]),
        ("leaderboard", ["--dataset", "cifar10", "--out", "s3://bucket/x.md"]),
    ],
)
def test_an_address_is_no_folder_to_write_to(command, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    write_config(get_recipe("digits").config, run / "config.json")
    argv = [str(run) if word == "RUN" else word for word in words]
    monkeypatch.setattr("sys.argv", ["lasat", *argv])
    assert importlib.import_module(f"lasat_ray.{command}").main() in (1, 2)
    error = capsys.readouterr().err
    assert "://bucket" in error and error.count("\n") == 1 and "a bug of ours" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
