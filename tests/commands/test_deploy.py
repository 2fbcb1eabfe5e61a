"""What travels with a net, image files told by it, and folders for other programs."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import lasat_ray
from lasat_ray import evaluate, predict
from lasat_ray.api.predicted import image_files
from lasat_ray.cluster.local import train_here
from lasat_ray.errors import UserError
from lasat_ray.evaluation.carried import carried, header
from lasat_ray.export import main as export
from lasat_ray.reporting.model_card import model_card
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.load import load_checkpointed
from tests.support.helpers import small_config

ROOT = Path(__file__).parents[2]
ACCURACIES = ["clean", "pgd-3", "worst case"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trained on named classes with a normalization of its own, and evaluated."""
    folder = tmp_path_factory.mktemp("deploy")
    rng = np.random.default_rng(0)
    label = np.arange(160) % 4
    image = np.clip(60 * label[:, None, None] + rng.integers(0, 40, (160, 8, 8)), 0, 255).astype(np.uint8)
    names = np.array(["ant", "bee", "=cmd()", "d|g"])
    np.savez(
        folder / "x.npz",
        image=image,
        label=label,
        test_image=image[:40],
        test_label=label[:40],
        class_names=names,
    )
    config = small_config(
        dataset=f"npz:{folder / 'x.npz'}",
        strategy="fixed",
        epochs=4,
        data__max_train=None,
        data__max_test=None,
        data__mean=(0.4,),
        data__std=(0.3,),
        precision="fp32",
    )
    made = RunFolder.create(folder / "run", config)
    train_here(config, made, device="cpu")
    assert evaluate.main([str(made.path), "--attacks", "clean", "pgd-3", "--sanity-examples", "0"]) == 0
    for n in range(4):
        Image.fromarray(image[n]).save(folder / f"{n}.png")
    (folder / "more").mkdir()
    Image.fromarray(np.repeat(np.repeat(image[5], 3, 0), 2, 1)).convert("RGB").save(folder / "more" / "b.jpg")
    (folder / "more" / "notes.txt").write_text("no image")
    return made.path


def test_classes_budget_and_accuracies_travel_with_the_net(run):
    net = lasat_ray.load_model(run)
    assert net.classes == ("ant", "bee", "=cmd()", "d|g")
    report = json.loads((run / "evaluation.json").read_text())
    told = {row["name"]: row for row in net.card["accuracies"]}
    assert list(told) == ACCURACIES
    for name, entry in [*report["attacks"].items(), ("worst case", report["worst_case"])]:
        assert told[name]["accuracy"] == entry["accuracy"] and told[name]["interval"] == entry["interval"]
    assert net.card["mean"] == pytest.approx([0.4]) and net.card["std"] == pytest.approx([0.3])
    config = small_config()
    assert (net.card["norm"], net.card["eps"]) == (config.evaluation.norm, config.evaluation.eps)
    assert net.card["dataset"] == "x"


def test_accuracies_of_other_weights_stay_behind(run, tmp_path):
    """An evaluation that was made of other weights under the same name is not this net's."""
    file = run / "checkpoints" / "best.safetensors"
    net, card = load_checkpointed(file)
    with torch.no_grad():
        net.backbone.fc.bias += 1
    told = carried(net, card, file)
    assert told["accuracies_of"] == "40 test images at the end of training"
    assert told["accuracies"][0]["name"] == "clean"
    last = carried(*load_checkpointed(run, which="last"), run / "checkpoints" / "last.safetensors")
    assert "accuracies" not in last


@pytest.mark.parametrize("mask", [0o022, 0o077])
@pytest.mark.parametrize("kind", ["torch-export", "safetensors", "card", "huggingface"])
def test_files_have_the_modes_of_the_umask(kind, mask, run, tmp_path):
    if kind == "huggingface":
        pytest.importorskip("onnxscript"), pytest.importorskip("onnxruntime")
    before = os.umask(mask)
    try:
        assert export([str(run), "--format", kind, "--out", str(tmp_path / "out")]) == 0
    finally:
        os.umask(before)
    made = [path for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")] if path.is_file()]
    assert made and {path.stat().st_mode & 0o777 for path in made} == {0o666 & ~mask}


def test_every_format_says_the_same(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    expected = header(lasat_ray.load_model(run).card)
    assert {"class_names", "accuracies", "mean", "std", "norm", "eps", "image_shape"} <= expected.keys()
    for kind in ("onnx", "torch-export", "safetensors"):
        assert export([str(run), "--format", kind, "--out", str(tmp_path / kind)]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx"), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == expected
    extra = {"card.json": ""}
    torch.export.load(tmp_path / "torch-export", extra_files=extra)
    assert json.loads(extra["card.json"]) == expected
    with safe_open(tmp_path / "safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", **expected}


def test_an_exported_file_is_opened_again_with_all_that_it_knows(run, tmp_path):
    assert export([str(run), "--format", "safetensors", "--out", str(tmp_path / "m.safetensors")]) == 0
    net, again = lasat_ray.load_model(run), lasat_ray.load_model(tmp_path / "m.safetensors")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(net(x), again(x))
    assert again.classes == net.classes
    assert header(again.card) == header(net.card)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("accuracies", '[{"name": 3}]', "its header's accuracies is"),
        ("accuracies", "[", "is no JSON"),
        ("num_classes", '"ten"', "its card's num_classes is 'ten'"),
        ("eps", "NaN", "its header's eps is nan"),
        ("norm", "l3", "its header's norm is 'l3'"),
        ("model", "os:getcwd", "its net is code"),
    ],
)
def test_a_strangers_header_is_not_believed(name, value, told, run, tmp_path):
    net, card = load_checkpointed(run)
    words = {**header(carried(net, card, run / "checkpoints" / "best.safetensors")), name: value}
    save_file(net.state_dict(), tmp_path / "m.safetensors", metadata=words)
    with pytest.raises(UserError, match=told) as caught:
        lasat_ray.load_model(tmp_path / "m.safetensors")
    assert "\n" not in str(caught.value)


def test_the_folder_for_the_hub(run, tmp_path):
    pytest.importorskip("onnxscript"), pytest.importorskip("onnxruntime")
    out = tmp_path / "hub"
    assert export([str(run), "--format", "huggingface", "--out", str(out)]) == 0
    names = {"README.md", "config.json", "preprocessor_config.json", "model.onnx", "model.safetensors"}
    assert {path.name for path in out.iterdir()} == names and [p.name for p in tmp_path.iterdir()] == ["hub"]
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"] == {"0": "ant", "1": "bee", "2": "=cmd()", "3": "d|g"}
    assert config["image_size"] == [8, 8] and config["lasat_ray"]["model"] == "small_cnn"
    text = (out / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: lasat-ray\n") and "model.onnx" in text
    net = lasat_ray.load_model(out)
    assert torch.equal(net(torch.zeros(1, 1, 8, 8)), lasat_ray.load_model(run)(torch.zeros(1, 1, 8, 8)))


def test_without_the_packages_of_onnx_the_folder_is_made_and_says_so(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert export([str(run), "--format", "huggingface", "--out", str(tmp_path / "hub")]) == 0
    assert "model.onnx is left out" in capsys.readouterr().out
    assert not (tmp_path / "hub" / "model.onnx").exists()
    assert "onnxruntime" not in (tmp_path / "hub" / "README.md").read_text()


def test_the_model_card_has_the_table_and_words_of_strangers_stay_words(run):
    net = lasat_ray.load_model(run)
    text = model_card(net.card)
    for row in net.card["accuracies"]:
        assert f"| {row['name']} |" in text and f"{100 * row['accuracy']:.2f} %" in text
    assert "3 d\\|g" in text and "mean 0.4, std 0.3" in text and "L-inf eps" in text
    bare = {"model": "m", "num_classes": 2, "image_shape": [1, 8, 8], "precision": "fp32"}
    assert "Nothing was measured" in model_card(bare)
    sly = model_card({**bare, "class_names": ["a\n# b", "<script>"]})
    assert "\n# b" not in sly and "<script>" not in sly


def told(capsys, *words):
    assert predict.main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_images_are_told_in_each_format(run, tmp_path, capsys):
    place, net = run.parent, lasat_ray.load_model(run)
    files = [place / f"{n}.png" for n in range(4)]
    x = torch.stack([torch.tensor(np.asarray(Image.open(file)))[None] for file in files]) / 255
    p = net(x).softmax(1)
    rows = [
        json.loads(line) for line in told(capsys, run, *files, "--format", "json", "--top", "2").splitlines()
    ]
    for row, file, share in zip(rows, files, p, strict=True):
        assert row["image"] == str(file)
        assert row["class"] == net.classes[int(share.argmax())]
        assert row["confidence"] == pytest.approx(float(share.max()), abs=1e-5)
        assert row["confidence_2"] == pytest.approx(float(share.topk(2).values[1]), abs=1e-5)
    table = told(capsys, run, *files, "--top", "2")
    assert all(row["class"] in table for row in rows) and "then next" in table
    assert told(capsys, run, *files, "--format", "csv", "--out", tmp_path / "a.csv") == ""
    assert told(capsys, run, *files, "--out", tmp_path / "b.csv") == "", "its suffix says the format"
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()
    with open(tmp_path / "a.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["class"].lstrip("'") for row in written] == [row["class"] for row in rows]
    assert all(row["class"] in ("ant", "bee", "'=cmd()", "d|g") for row in written)


def test_a_folder_is_walked_and_other_sizes_are_brought_to_the_nets(run, capsys):
    assert image_files([str(run.parent / "more")]) == [run.parent / "more" / "b.jpg"]
    (row,) = map(json.loads, told(capsys, run, run.parent / "more", "--format", "json").splitlines())
    image = Image.open(run.parent / "more" / "b.jpg").convert("L").resize((8, 8), Image.Resampling.BILINEAR)
    net = lasat_ray.load_model(run)
    logits = net(torch.tensor(np.asarray(image))[None, None] / 255)
    assert row["class"] == net.classes[int(logits.argmax())]
    assert row["confidence"] == pytest.approx(float(logits.softmax(1).max()), abs=1e-5)


def test_under_attack_the_class_it_named_is_attacked_within_the_budget(run, capsys):
    files = [run.parent / f"{n}.png" for n in range(4)]
    out = told(capsys, run, *files, "--format", "json", "--under-attack", "--eps", "0.3", "--num-steps", "5")
    rows = [json.loads(line) for line in out.splitlines()]
    net = lasat_ray.load_model(run)
    x = torch.stack([torch.tensor(np.asarray(Image.open(file)))[None] for file in files]) / 255
    y = net(x).argmax(1)
    p = net(lasat_ray.attack(net, x, y, eps=0.3, steps=5)).softmax(1)
    for n, row in enumerate(rows):
        assert row["confidence_under_attack"] == pytest.approx(float(p[n, y[n]]), abs=1e-4)
        assert row["class_under_attack"] == net.classes[int(p[n].argmax())]
        assert row["withstands"] == (row["class_under_attack"] == row["class"])
        assert row["confidence_under_attack"] < row["confidence"]
    own = [
        json.loads(line)
        for line in told(capsys, run, *files, "--format", "json", "--under-attack").splitlines()
    ]
    assert [row["class"] for row in own] == [row["class"] for row in rows]
    assert "PGD-20, L-inf eps" in told(capsys, run, *files, "--under-attack")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "RUN and IMAGE are missing"),
        (["{run}"], 2, "RUN and IMAGE are missing"),
        (["{run}", "nowhere.png"], 2, "IMAGE: 'nowhere.png' is no file"),
        (["{run}", "{run}/checkpoints"], 2, "holds no image"),
        (["{run}", "{run}/config.json"], 1, "is no image that can be read"),
        (["nowhere", "{png}"], 1, "no such run folder"),
        (["{run}", "{png}", "--eps", "0.1"], 2, "--eps: 0.1 has no effect without --under-attack"),
        (["{run}", "{png}", "--top", "0"], 2, "--top: 0 is out of range"),
        (["{run}", "{png}", "--out", "x.txt"], 2, "--out: 'x.txt' takes no table"),
        (["{run}", "{png}", "--format", "json", "--out", "{png}"], 2, "already exists"),
    ],
)
def test_a_bad_call_is_one_line(words, status, said, run, capsys):
    put = {"run": run, "png": run.parent / "0.png"}
    assert predict.main([word.format(**put) for word in words]) == status
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and ";" in err


def test_onnxruntime_alone_gives_the_same_classes(run, tmp_path, capsys):
    """In a process where neither PyTorch nor this package can be imported."""
    pytest.importorskip("onnxscript"), pytest.importorskip("onnxruntime")
    assert export([str(run), "--format", "onnx", "--out", str(tmp_path / "m.onnx")]) == 0
    files = [str(run.parent / f"{n}.png") for n in range(4)]
    capsys.readouterr()
    rows = [json.loads(line) for line in told(capsys, run, *files, "--format", "json").splitlines()]
    code = (
        "import runpy, sys\n"
        "sys.modules['torch'] = sys.modules['lasat_ray'] = sys.modules['torchvision'] = None\n"
        f"sys.argv = ['deploy', {str(tmp_path / 'm.onnx')!r}, *{files!r}]\n"
        f"runpy.run_path({str(ROOT / 'examples' / 'deploy_onnx.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("measured: ") for line in lines) == len(ACCURACIES)
    for row, line in zip(rows, lines[len(ACCURACIES) :], strict=True):
        assert line == f"{row['image']}: {row['class']} {row['confidence']:.1%}"
