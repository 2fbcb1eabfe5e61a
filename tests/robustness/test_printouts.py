"""Commands whose printout cannot arrive: files are written; where the printout is all there is, it counts."""

import io

import numpy as np
import pytest
from PIL import Image

from lasat_ray import evaluate, explain, export, leaderboard, predict, report

FILES = {
    "evaluate": (evaluate.main, "RUN --attacks clean --n-examples 20 --out OUT/e"),
    "report": (report.main, "RUN --no-net --no-png --out OUT/r"),
    "explain": (explain.main, "RUN 0 --num-steps 1 --resolution 0.2 --out OUT/x.png"),
    "export": (export.main, "RUN --format card --out OUT/c.md"),
    "predict": (predict.main, "RUN IMAGE --format csv --out OUT/p.csv"),
    "leaderboard": (leaderboard.main, "--dataset cifar10 --out OUT/b.md"),
}
PRINTED = {
    "predict-table": (predict.main, "RUN IMAGE"),
    "predict-json": (predict.main, "RUN IMAGE --format json"),
    "leaderboard-table": (leaderboard.main, "--dataset cifar10"),
}


@pytest.fixture
def words(trained, tmp_path):
    (tmp_path / "out").mkdir()
    Image.fromarray(np.full((8, 8), 128, np.uint8)).save(tmp_path / "i.png")
    places = {"RUN": str(trained), "OUT": str(tmp_path / "out"), "IMAGE": str(tmp_path / "i.png")}

    def spelled(line):
        for name, place in places.items():
            line = line.replace(name, place)
        return line.split()

    return spelled


@pytest.mark.parametrize("name", FILES)
def test_a_full_stdout_costs_text_and_not_the_files(name, words, tmp_path, monkeypatch):
    main, line = FILES[name]
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(words(line)) == 0
    assert any((tmp_path / "out").rglob("*.*"))


@pytest.mark.parametrize("name", PRINTED)
def test_a_printout_that_is_all_there_is_counts(name, words, monkeypatch, capsys):
    main, line = PRINTED[name]
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(words(line)) == 1
    told = capsys.readouterr().err
    assert told == "lasat-ray: warning: stdout cannot be written (No space left on device)\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("name", [*FILES, *PRINTED])
def test_letters_that_an_encoding_lacks_are_numbers(name, encoding, words, monkeypatch):
    main, line = FILES[name] if name in FILES else PRINTED[name]
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stream)
    assert main(words(line)) == 0
    stream.flush()
    assert bool(stream.buffer.getvalue().decode(encoding).strip()) == (name != "predict")  # a CSV is enough
