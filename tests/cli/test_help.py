"""``--help-all`` of every command: as wide as the terminal, grouped, each option with its default."""

from __future__ import annotations

import importlib
import re
import sys

import pytest

from lasat_ray.__main__ import GROUPS

COMMANDS = [name for names in GROUPS.values() for name in names]
TAKEN_APART = {
    "lasat_ray.train": {"run", "data", "attack", "loss", "reward", "policy", "optim"},
    "lasat_ray.evaluate": {"net", "result", "run"},
    "lasat_ray.tune.sweep_k": {"sweep", "run", "reward"},
    "lasat_ray.tune.sweep_weights": {"sweep", "run", "reward"},
    "lasat_ray.tune.search_strategy": {"sweep", "run", "reward"},
}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_the_terminal_is_grouped_and_tells_defaults(command, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "argv", [command, "--help-all"])
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(command).main()
    told = capsys.readouterr().out
    assert stop.value.code == 0
    assert max(map(len, told.splitlines())) <= width
    assert set(re.findall(r"^\W*(\w+) options", told, flags=re.M)) >= TAKEN_APART.get(command, set())
    options = re.split(r"^[│ ] (?=--\w)", told.partition("-h, --help")[2], flags=re.M)[1:]
    without = [option.split()[0] for option in options if "(default:" not in " ".join(option.split())]
    assert options and set(without) <= {"--attack.grid"}, without
