"""Files from a stranger: nothing in them is run, nothing outside their folder is written, no bomb unpacks."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from lasat_ray import evaluate, explain, export, report, train
from lasat_ray.errors import UserError, one_line
from lasat_ray.runs.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from lasat_ray.runs.load import load_model, read_weights
from lasat_ray.tune.storage import TRIALS, Store
from tests.data.conftest import encode, load, pixels

CODE = "import pathlib\npathlib.Path(__file__).with_name('was_run').touch()\nbuild = None\n"


def touch(path: str) -> None:
    Path(path).touch()


class Bomb:
    """A pickle of it creates a file when it is read."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return touch, (self.path,)


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run, in the present folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def told(monkeypatch, capsys, command, *args: str) -> str:
    """What a command that has to fail writes: one line."""
    monkeypatch.setattr("sys.argv", ["lasat", *args])
    assert command() in (1, 2)
    err = capsys.readouterr().err
    assert err.startswith("lasat-ray: error: ") and err.count("\n") == 1, err
    return err


def set_config(run: Path, **changes: object) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, **changes}))


FIELDS = ("model", "strategy_model", "learner", "method")


@pytest.mark.parametrize("field", FIELDS)
def test_code_named_by_a_handed_over_run_is_not_run_on_resume(run, field, monkeypatch, capsys):
    (run.parent / "their_code.py").write_text(CODE)
    set_config(run, **{field: "their_code:build"})
    (run / "summary.json").unlink()
    option = "--" + field.replace("_", "-")
    err = told(monkeypatch, capsys, train.main, "--resume", "run")
    assert f"its {option} is code, 'their_code:build'; if you trust it, add --trust" in err
    assert not (run.parent / "was_run").exists()


def test_code_that_the_user_trusts_or_names_is_run(run, monkeypatch, capsys):
    (run.parent / "their_own_code.py").write_text(CODE)
    set_config(run, learner="their_own_code:build")
    (run / "summary.json").unlink()
    for more in (["--trust"], ["--learner", "their_own_code:build"]):
        assert "is no class" in told(monkeypatch, capsys, train.main, "--resume", "run", *more)
    assert (run.parent / "was_run").exists()


COMMANDS = {
    "train": (train.main, ("--resume", "run")),
    "evaluate": (evaluate.main, ("run", "--attacks", "clean")),
    "report": (report.main, ("run", "--no-net")),
    "explain": (explain.main, ("run", "0")),
    "export": (export.main, ("run", "--format", "safetensors")),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_link_or_pipe_in_a_run_folder_is_refused_by_every_command(run, name, monkeypatch, capsys):
    command, args = COMMANDS[name]
    precious = run.parent / "precious.txt"
    precious.write_text("years of work")
    planted = run / "explain.png"
    planted.symlink_to(precious)
    assert "is a link that leads out of the run folder" in told(monkeypatch, capsys, command, *args)
    planted.unlink()
    os.mkfifo(planted)
    assert "is neither a file nor a folder" in told(monkeypatch, capsys, command, *args)
    assert precious.read_text() == "years of work"


def with_metadata(path: Path, tree: str) -> None:
    """A checkpoint without tensors whose tree is arbitrary text, its checksum right."""
    metadata = {"format": FORMAT, "tree": tree, "sha256": hashlib.sha256(tree.encode()).hexdigest()}
    header = json.dumps({"__metadata__": metadata}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with safe_open(path, framework="pt"):
        pass  # safetensors itself takes it


TREES = [
    "[]",
    "3",
    "{}",
    '{"tensor": "absent"}',
    '{"set": []}',
    '{"dict": [[[1], 2]]}',
    '{"dict": 3}',
    '{"dict": [["a"]]}',
    "[" * 100_000,
    '{"list": [' * 3000 + "]}" * 3000,
    "\x00",
]


@pytest.mark.parametrize("tree", TREES, ids=range(len(TREES)))
def test_a_forged_tree_with_a_right_checksum_is_one_line(tmp_path, tree):
    path = tmp_path / "a.safetensors"
    with_metadata(path, tree)
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


CARDS = [
    ({"num_classes": 10**9}, "num_classes is 1000000000"),
    ({"num_classes": True}, "num_classes is True"),
    ({"image_shape": [3, 10**6, 10**6]}, "image_shape is"),
    ({"image_shape": "big"}, "image_shape is 'big'"),
    ({"precision": None}, "precision is None"),
    ({"class_names": ["a"]}, "1 class_names for 10 num_classes"),
    ({"model": "wrn-34-4000"}, "of another architecture"),
    ({"model": "wrn-6000004-1"}, "has depth 6000004"),
    ({"model": "resnet18-99999999"}, "has width 99999999"),
    ({"model": ["x"]}, "model is ['x']"),
]


@pytest.mark.parametrize(("changes", "text"), CARDS)
def test_a_forged_card_is_refused_before_its_net_takes_memory(run, changes, text):
    file = run / "checkpoints" / "best.safetensors"
    tree = load_checkpoint(file)
    save_checkpoint(file, {**tree, "card": {**tree["card"], **changes}})
    with pytest.raises(UserError) as caught:
        load_model(run)
    assert text in str(caught.value)


def test_a_last_checkpoint_of_another_run_is_one_line(run, monkeypatch, capsys):
    (run / "summary.json").unlink()
    for name in ("last", "previous"):
        save_checkpoint(run / "checkpoints" / f"{name}.safetensors", {"round": 1, "metrics_offset": 0})
    assert "does not fit its config.json" in told(monkeypatch, capsys, train.main, "--resume", "run")


def test_planted_pickles_run_nowhere(tmp_path):
    fired = tmp_path / "fired"
    bomb = pickle.dumps(Bomb(fired))
    weights = tmp_path / "w.pt"
    torch.save({"state_dict": Bomb(fired)}, weights)
    npz, old = tmp_path / "set.npz", tmp_path / "old.npz"
    np.savez(npz, image=np.array([Bomb(fired)], dtype=object), label=np.array([Bomb(fired)], dtype=object))
    old.write_bytes(bomb)
    cifar = tmp_path / "cifar-10-batches-py"
    cifar.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{n}" for n in range(1, 6))):
        (cifar / name).write_bytes(bomb)
    # how pyarrow once stored extension types: a pickle in the schema (CVE-2023-47248)
    folder = tmp_path / "parquet"
    folder.mkdir()
    field = pa.field(
        "image",
        pa.binary(),
        metadata={
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": bomb,
        },
    )
    table = pa.table({"image": [encode(pixels(0))], "label": [0]})
    table = table.cast(pa.schema([field, pa.field("label", pa.int64())]))
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}-0.parquet")
    with pytest.raises(UserError, match="holds more than tensors"):
        read_weights(weights)
    for file in (npz, old):
        with pytest.raises(UserError):
            load(f"npz:{file}")
    (tmp_path / "cifar-10-python.tar.gz").mkdir()  # nothing can be downloaded over it
    with pytest.raises(UserError, match="is not in"):
        load("cifar10", tmp_path)
    load(f"parquet:{folder}").load_test()
    assert not fired.exists()
    pickle.loads(bomb)
    assert fired.exists(), "the bomb itself is a dud"


def test_a_packed_file_of_weights_is_refused(tmp_path):
    plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
    torch.save({"w": torch.zeros(2**20)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert packed.stat().st_size * 50 < plain.stat().st_size
    with pytest.raises(UserError, match=r"is compressed, which torch\.save never does"):
        read_weights(packed)


def test_an_npz_that_unpacks_two_hundredfold_is_refused(tmp_path):
    image = np.zeros((2**13, 32, 32, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "bomb.npz", image=image, label=np.zeros(2**13, dtype=np.int64))
    with pytest.raises(UserError, match=r"bomb\.npz image: unpacks .* over the limit of 200 times"):
        load(f"npz:{tmp_path / 'bomb.npz'}")


def png_bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * side)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_an_image_bomb_and_a_picture_program_are_refused_by_explain(run, monkeypatch, capsys):
    (run.parent / "bomb.png").write_bytes(png_bomb(9000))
    (run.parent / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n")
    assert "over the limit" in told(monkeypatch, capsys, explain.main, "run", "bomb.png")
    assert "is no image that can be read" in told(monkeypatch, capsys, explain.main, "run", "program.png")


def test_names_that_climb_out_of_an_archive_write_nothing(tmp_path):
    file = tmp_path / "set.npz"
    np.savez(file, image=np.zeros((2, 4, 4), np.uint8), label=np.array([0, 1]))
    with zipfile.ZipFile(file, "a") as members:
        members.writestr("../escaped.npy", b"x")
        members.writestr("/tmp/escaped.npy", b"x")
    load(f"npz:{file}", max_test=1)
    assert not (tmp_path.parent / "escaped.npy").exists()


def test_names_that_climb_out_of_a_sweeps_store_write_nothing(tmp_path, monkeypatch):
    store = Store("memory://hostile")
    store.write(f"{TRIALS}/a/config.json", b"{}")
    source = f"{store.root}/{TRIALS}/a"
    monkeypatch.setattr(type(store._fs), "find", lambda *_: [f"{source}/../../escaped.txt"])
    with pytest.raises(UserError, match="leads out of the sweep"):
        store.fetch("a", tmp_path / "here" / "a")
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_pipe_among_the_images_does_not_keep_the_reader_waiting(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "0.png").write_bytes(encode(pixels(0)))
    os.mkfifo(tmp_path / "train" / "a" / "1.png")
    with pytest.raises(UserError, match="is no ordinary file"):
        load(f"imagefolder:{tmp_path}")


def test_a_report_shows_a_strangers_words_as_words(run, monkeypatch):
    attack = "</script><script>alert(1)</script>"
    set_config(run, recipe=attack)
    (run / "manifest.json").write_text(json.dumps({"commit": attack, "command": [attack]}))
    assert report.main(["run", "--no-net", "--no-png"]) == 0
    assert attack not in (run.parent / "report" / "report.html").read_text()
    set_config(run, seed=attack)
    assert report.main(["run", "--no-net", "--no-png"]) == 1


def test_words_of_a_file_cannot_steer_the_terminal():
    assert one_line("a\x1b[31m\x07b\u2028c\nd") == "a\\x1b[31m\\x07b c d"
    assert len(one_line("x" * 10**6)) < 2100


def test_json_without_end_is_refused(run, monkeypatch, capsys):
    for content in ("[" * 10**6, '{"a":' * 10**5, "1" * (17 * 2**20), "\xff", '{"seed": 1e999}'):
        (run / "config.json").write_bytes(content.encode("latin-1"))
        assert "config.json" in told(monkeypatch, capsys, train.main, "--resume", "run")
