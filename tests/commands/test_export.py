"""Exported files compute what the net computes, for any size of batch; others are not kept."""

import json

import pytest
import torch
from safetensors import safe_open

from lasat_ray.api.commands.export import FORMATS, export, probe_images
from lasat_ray.cluster.local import train_here
from lasat_ray.errors import UserError
from lasat_ray.export import main
from lasat_ray.models import build_classifier
from lasat_ray.models.classifier import channel_values
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.load import load_checkpointed
from tests.support.helpers import small_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = small_config(epochs=1)
    folder = RunFolder.create(tmp_path_factory.mktemp("export") / "run", config)
    train_here(config, folder, device="cpu")
    return folder.path


def need(kind):
    if kind == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_computes_what_the_net_computes(kind, run, tmp_path, capsys):
    need(kind)
    out = tmp_path / "model.file"
    assert main([str(run), "--format", kind, "--out", str(out)]) == 0
    net, card = load_checkpointed(run)
    x = torch.rand(3, 1, 8, 8)
    again = FORMATS[kind][1](out, card)
    torch.testing.assert_close(again(x), net(x), rtol=0, atol=1e-4)
    assert "largest difference" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["model.file"]


@pytest.mark.parametrize("kind", FORMATS)
def test_normalization_is_inside(kind, tmp_path):
    need(kind)
    net = build_classifier("small_cnn", num_classes=4, image_shape=(1, 8, 8), mean=0.4, std=0.2).eval()
    assert torch.equal(net.mean, channel_values("mean", 0.4, 1))
    card = {"model": "small_cnn", "num_classes": 4, "image_shape": [1, 8, 8], "precision": "fp32"}
    export(net, card, kind, tmp_path / "model", tolerance=1e-4)
    bare = net.backbone(x := probe_images(net, card, 2))
    again = FORMATS[kind][1](tmp_path / "model", card)(x)
    assert float((again - net(x)).abs().max()) < 1e-4 < float((again - bare).abs().max())


def test_a_file_that_computes_something_else_is_not_kept(run, tmp_path, monkeypatch):
    net, card = load_checkpointed(run)
    write, read = FORMATS["safetensors"]
    wrong = lambda file, card: lambda x: read(file, card)(x) + 1  # noqa: E731
    monkeypatch.setitem(FORMATS, "safetensors", (write, wrong))
    with pytest.raises(UserError, match=r"differ from the net's by 1\.0e\+00"):
        export(net, card, "safetensors", tmp_path / "model", tolerance=1e-4)
    assert not list(tmp_path.iterdir())


def test_weights_say_what_they_belong_to(run, tmp_path):
    assert main([str(run), "--format", "safetensors", "--out", str(tmp_path / "a.safetensors")]) == 0
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["model"] == "small_cnn"
        assert json.loads(file.metadata()["image_shape"]) == [1, 8, 8]


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 2, "RUN is missing"),
        (["nowhere"], 1, "no such run folder"),
        (["{run}", "--format", "tflite"], 2, "--format: 'tflite' is not accepted"),
        (["{run}", "--out", "{run}/config.json"], 2, "already exists"),
        (["{run}", "--out", "{run}/no/model"], 2, "is not there"),
    ],
)
def test_a_bad_call_is_one_line(arguments, status, told, run, capsys):
    assert main([word.format(run=run) for word in arguments]) == status
    assert told in capsys.readouterr().err
