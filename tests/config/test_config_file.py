"""Files of settings: three formats, one meaning; typed, unknown names refused with the nearest; flags win."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest

import lasat_ray
from lasat_ray.cli.run_options import check_run, parse_train
from lasat_ray.config import TrainConfig
from lasat_ray.config.changes import changed
from lasat_ray.config.config_file import FORMATS, config_of_file, read_settings, spell_settings
from lasat_ray.errors import UserError
from lasat_ray.recipes import RECIPES
from lasat_ray.train import main

ROOT = Path(__file__).parents[2]


def find(name):
    """A recipe, or for None that of who names none."""
    return RECIPES[name or "digits"].config


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["digits", "images", "table1-cifar10-resnet18-las-at-k40"])
def test_a_written_config_reads_back_exactly(kind, name, tmp_path):
    config = changed(find(name), {"attack.eps": 0.1 + 1e-9, "optim.lr": 1e-5, "teacher": 'a "b"', "seed": 3})
    file = tmp_path / f"run.{kind}"
    file.write_text(spell_settings(config, kind))
    read, given = config_of_file(file, None, find)
    assert read == config and "reward.alpha" in given


SAME = {
    "run.yaml": "recipe: digits\nepochs: 3 # few\noptim:\n  lr: 5e-2\nreward.alpha: 2\n"
    "attack: {eps: 26/255}\nteacher: null\ndata: {flip: false}",
    "run.toml": 'recipe = "digits"\nepochs = 3\n"reward.alpha" = 2\nteacher = "none"\n'
    '[optim]\nlr = 0.05\n[attack]\neps = "26/255"\n[data]\nflip = false',
    "run.json": '{"recipe": "digits", "epochs": 3, "optim": {"lr": 0.05}, "reward.alpha": 2,'
    ' "attack": {"eps": "26/255"}, "data.flip": false, "teacher": null}',
}


def test_three_formats_say_the_same(tmp_path):
    wanted = lasat_ray.recipe(
        "digits", epochs=3, optim={"lr": 0.05}, reward={"alpha": 2}, attack={"eps": 26 / 255}
    )
    for name, text in SAME.items():
        (tmp_path / name).write_text(text)
        assert config_of_file(tmp_path / name, None, find)[0] == wanted, name
        assert lasat_ray.recipe(tmp_path / name) == wanted
        config, _ = parse_train(["--config", str(tmp_path / name)])
        assert config == wanted


def test_flags_win_and_a_recipe_may_be_named_beside_a_file_without_one(tmp_path):
    (tmp_path / "a.yml").write_text("epochs: 3\noptim.lr: 0.07")
    words = ["--config", str(tmp_path / "a.yml")]
    assert parse_train([*words, "--epochs", "5"])[0].epochs == 5
    config, _ = parse_train([*words, "--recipe", "images"])
    assert (config.recipe, config.epochs, config.optim.lr) == ("images", 3, 0.07)


def test_the_config_of_a_run_is_a_file_too_of_older_versions_as_well(tmp_path):
    config = lasat_ray.recipe("digits", seed=9)
    content = json.loads(spell_settings(config, "json"))
    del content["stop_on"], content["reward"]["objective"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert parse_train(["--config", str(tmp_path / "config.json")])[0] == changed(
        config, {"stop_on": "none", "reward.objective": "total"}
    )


def test_who_names_no_recipe_has_the_same_from_flags_a_file_and_python(tmp_path):
    (tmp_path / "a.yaml").write_text("epochs: 3")
    by_flags, _ = parse_train(["--epochs", "3"])
    assert parse_train(["--config", str(tmp_path / "a.yaml")])[0] == by_flags
    assert lasat_ray.recipe(epochs=3) == by_flags == lasat_ray.recipe(tmp_path / "a.yaml")


def test_code_that_a_strangers_run_names_needs_trust_from_python_too(tmp_path):
    config = lasat_ray.recipe("digits", model="evil:net")
    (tmp_path / "config.json").write_text(spell_settings(config, "json"))
    (tmp_path / "manifest.json").write_text("{}")
    told = "its model is code, 'evil:net'; if you trust it, add trust"
    for call in (lasat_ray.train, partial(lasat_ray.sweep, "k")):
        with pytest.raises(UserError, match=told):
            call(tmp_path / "config.json", out=tmp_path / "run")
    with pytest.raises(UserError, match="evil"):  # trusted, and looked for
        lasat_ray.train(tmp_path / "config.json", out=tmp_path / "run", trust=True)
    assert not (tmp_path / "run").exists()


def test_code_that_a_strangers_run_names_needs_trust(tmp_path):
    config = lasat_ray.recipe("digits", model="evil:net")
    (tmp_path / "config.json").write_text(spell_settings(config, "json"))
    words = ["--config", str(tmp_path / "config.json")]
    assert parse_train(words)[0].model == "evil:net"  # a file of one's own
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="its --model is code, 'evil:net'; if you trust it, add --trust"):
        parse_train(words)
    config, options = parse_train([*words, "--trust"])
    check_run(config, options)
    assert config.model == "evil:net"


LINES = [
    ("run.yaml", "optim: {lrr: 1}", "{file}: optim.lrr: is not a setting; did you mean optim.lr"),
    (
        "run.yaml",
        "num_workers: 2",
        "{file}: num_workers: is an option of the command, not a setting; give it there",
    ),
    ("run.yaml", "epochs: many", "{file}: epochs: 'many' is not accepted; give a whole number"),
    ("run.yaml", "epochs: 3.0", "{file}: epochs: 3.0 is not accepted; give a whole number"),
    ("run.yaml", "epochs: '3'", "{file}: epochs: '3' is not accepted; give a whole number"),
    ("run.yaml", "data: {flip: no}", "{file}: data.flip: 'no' is not accepted; give True or False"),
    ("run.yaml", "attack.eps: 8/0", "{file}: attack.eps: '8/0' is not a budget"),
    ("run.yaml", "epochs: 3\nepochs: 4", "{file}: is no YAML ('epochs' stands twice, line 1 and below)"),
    ("run.yaml", "epochs: [", "{file}: is no YAML ("),
    ("run.yaml", "- 3", "{file}: holds no settings by name; write for example epochs: 30"),
    ("run.yaml", "!!python/object/apply:os.system ['true']", "{file}: is no YAML ("),
    ("run.yaml", "recipe: digts", "--recipe: 'digts' is unknown; did you mean digits"),
    ("run.json", '{"epochs": 3, "epochs": 4}', "{file}: is no JSON ('epochs' stands twice)"),
    ("run.toml", "epochs = 3\nepochs = 4", "{file}: is no TOML ("),
    ("run.ini", "a", "--config: '{file}' ends in none of .yaml, .yml, .toml, .json; rename it"),
    ("run.yaml", None, "--config: '{file}' cannot be read (No such file or directory)"),
]


@pytest.mark.parametrize(("name", "text", "line"), LINES, ids=[line[:60] for _, _, line in LINES])
def test_a_wrong_file_is_one_line(name, text, line, tmp_path):
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError) as caught:
        parse_train(["--config", str(file)])
    assert str(caught.value).startswith(line.format(file=file)) and "\n" not in str(caught.value)


def test_what_does_not_go_together_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("recipe: digits")
    words = ["--config", str(tmp_path / "a.yaml")]
    with pytest.raises(UserError, match="--recipe: 'images' stands beside recipe 'digits' of"):
        parse_train([*words, "--recipe", "images"])
    with pytest.raises(UserError, match=r"--config: .* cannot be set with --resume"):
        parse_train([*words, "--resume", "run"])
    config, options = parse_train(["--format", "yaml"])
    with pytest.raises(UserError, match="--format: 'yaml' prints nothing without --dry-run"):
        check_run(config, options)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_dry_run_prints_a_file_that_runs(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", "--recipe", "digits", "--seed", "4", "--dry-run", "--format", kind]
    monkeypatch.setattr(sys, "argv", words)
    assert main() == 0
    (tmp_path / f"run.{kind}").write_text(capsys.readouterr().out)
    assert parse_train(["--config", f"run.{kind}"])[0] == changed(find("digits"), {"seed": 4})


def test_the_example_is_read_and_keeps_its_comments():
    file = ROOT / "examples" / "run.yaml"
    config, given = config_of_file(file, None, find)
    assert config.reward.alpha == 2 and config.attack.grid["num_steps"] == (2, 3, 4)
    assert given >= {"epochs", "attack.grid", "reward.alpha"} and file.read_text().count("#") > 5
    assert config != TrainConfig() and read_settings(file)["optim"]["lr"] == 0.05
