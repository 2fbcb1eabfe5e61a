"""A run that cannot be written (an archive, a colleague's) is evaluated, explained, exported all the same."""

import os

import pytest

import lasat_ray
from lasat_ray import evaluate, explain, export

COMMANDS = {
    "evaluate": (evaluate.main, ["--attacks", "clean", "--n-examples", "20"], "evaluation.json"),
    "explain": (
        explain.main,
        ["0", "--num-steps", "1", "--restarts", "1", "--resolution", "0.2"],
        "explain.png",
    ),
    "export": (export.main, ["--format", "card"], "MODEL_CARD.md"),
}


@pytest.fixture
def read_only(trained, tmp_path, monkeypatch):
    """Says of some folders that they cannot be written, as the system does of a disk mounted so."""
    monkeypatch.chdir(tmp_path)
    closed, real = [trained.resolve()], os.access

    def access(place, mode, **more):
        inside = any(folder in (place, *place.parents) for folder in closed)
        return real(place, mode, **more) and not (inside and mode & os.W_OK)

    monkeypatch.setattr("lasat_ray.config.files.os.access", access)
    return closed


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("name", COMMANDS)
def test_results_go_beside_it_and_the_run_stays_as_it_is(name, trained, read_only, tmp_path, capsys):
    main, words, file = COMMANDS[name]
    before = contents(trained)
    assert main([str(trained), *words]) == 0
    place = f"{trained.name}-results"
    assert (tmp_path / place / file).is_file() and place in capsys.readouterr().out.replace("\n", "")
    assert contents(trained) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_where_nothing_can_be_written_it_is_said_before_anything_is_computed(
    name, trained, read_only, tmp_path, capsys
):
    read_only.append(tmp_path)
    main, words, _ = COMMANDS[name]
    assert main([str(trained), *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("lasat-ray: error: --out: '") and told.count("\n") == 1
    assert "cannot be written, nor the present folder; name one with --out" in told
    assert not list(tmp_path.iterdir())


def test_from_python(trained, read_only, tmp_path):
    found = lasat_ray.evaluate(trained, attacks=("clean",), n_examples=20)
    assert found.folder == type(trained)(f"{trained.name}-results")
    assert (tmp_path / found.folder / "evaluation.json").is_file()
