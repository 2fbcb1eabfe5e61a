"""First weights from a run, a checkpoint or a file from elsewhere: what is taken, told and refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lasat_ray import train
from lasat_ray.cluster.local import train_here
from lasat_ray.config.json_io import read_config
from lasat_ray.data.classes import Classes
from lasat_ray.errors import UsageError, UserError
from lasat_ray.export import main as export
from lasat_ray.models import build_classifier
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.load import load_checkpointed
from lasat_ray.runs.starting import Wanted, head_of, start_from
from tests.support.helpers import small_config

SHAPE = (1, 8, 8)
HEAD = {"backbone.fc.weight", "backbone.fc.bias"}
TEN = Classes(tuple("abcdefghij"))


class Plain(nn.Module):
    """A net of somebody's own that keeps its layers under ``model``."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, num_classes))

    def forward(self, x):
        return self.model(x)


def make(*, num_classes, image_shape):
    return Plain(num_classes)


def fixed(*, num_classes, image_shape):
    return Plain(10)


OWN = f"{__name__}:make"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = small_config(epochs=1, strategy="fixed", model="tiny_cnn_bn", data__max_train=200)
    folder = RunFolder.create(tmp_path_factory.mktemp("first") / "run", config)
    train_here(config, folder, device="cpu")
    return folder.path


def start(path, model="tiny_cnn_bn", classes=None, **changes):
    """(the net afterwards, the weights that it had before, the notes)."""
    classes = Classes.numbered(10) if classes is None else classes
    torch.manual_seed(3)
    net = build_classifier(model, num_classes=len(classes), image_shape=SHAPE, precision="fp64")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    wanted = Wanted(model=model, classes=classes, image_shape=SHAPE, **changes)
    return net, before, start_from(net, str(path), wanted)


def assert_taken(net, weights, before, head):
    """All weights are the file's but those of the head, which stay."""
    for name, value in net.state_dict().items():
        expected = before[name] if name in head else weights[name]
        assert torch.equal(value, expected.to(value.dtype)), name


WRAPPED = {
    "plain": lambda d: d,
    "state_dict": lambda d: {"epoch": 3, "state_dict": d},
    "model": lambda d: {"model": d, "args": {"lr": 0.1}},
    "net": lambda d: {"net": d, "acc": 0.9},
    "module": lambda d: {f"module.{name}": value for name, value in d.items()},
    "compiled": lambda d: {"state_dict": {f"module._orig_mod.{name}": v for name, v in d.items()}},
}


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("model", ["tiny_cnn_bn", OWN])
@pytest.mark.parametrize("count", [10, 3])
def test_a_state_dict_gives_its_weights_in_any_of_its_usual_forms(form, model, count, tmp_path):
    theirs = build_classifier(model, num_classes=10, image_shape=SHAPE)
    torch.save(WRAPPED[form](theirs.backbone.state_dict()), tmp_path / "w.pt")
    net, before, notes = start(tmp_path / "w.pt", model, Classes.numbered(count))
    head = set(head_of(model, 10, SHAPE))
    assert head == ({"backbone.model.3.weight", "backbone.model.3.bias"} if model == OWN else HEAD)
    assert_taken(net, theirs.state_dict(), before, head if count == 3 else ())
    assert len(notes) == (count == 3)
    if notes:
        assert "begin anew: 10 classes there, 3 here" in notes[0] and ".weight, " in notes[0]


def test_safetensors_and_exports_of_ours_too(run, tmp_path):
    theirs, _ = load_checkpointed(run)
    save_file(theirs.backbone.state_dict(), tmp_path / "w.safetensors")
    assert export([str(run), "--format", "safetensors", "--out", str(tmp_path / "export.safetensors")]) == 0
    for name in ("w", "export"):
        net, before, notes = start(tmp_path / f"{name}.safetensors")
        assert_taken(net, theirs.state_dict(), before, ())
        assert not notes


@pytest.mark.parametrize("which", ["", "checkpoints/last.safetensors"])
def test_a_run_gives_its_weights_and_a_new_head_where_the_classes_differ(run, which):
    theirs, _ = load_checkpointed(run / which)
    net, before, notes = start(run / which)
    assert_taken(net, theirs.state_dict(), before, ())
    assert not notes
    net, before, notes = start(run / which, classes=Classes(("cat", "dog", "eel")))
    assert_taken(net, theirs.state_dict(), before, HEAD)
    assert len(notes) == 1 and "10 classes there, 3 here" in notes[0]
    net, before, notes = start(run / which, new_head=True)
    assert_taken(net, theirs.state_dict(), before, HEAD)
    assert "as --new-head asks" in notes[0]


def test_what_does_not_fit_is_told_by_its_first_key(run, tmp_path):
    theirs = build_classifier("tiny_cnn_bn", num_classes=10, image_shape=SHAPE).backbone.state_dict()
    without = {name: value for name, value in theirs.items() if name != next(iter(theirs))}
    torch.save(without, tmp_path / "without.pt")
    torch.save({**theirs, "extra.weight": torch.zeros(2)}, tmp_path / "more.pt")
    torch.save({**theirs, "fc.bias": torch.zeros(11)}, tmp_path / "head.pt")
    (tmp_path / "text.pt").write_text("no weights")
    torch.save(nn.Linear(2, 2), tmp_path / "object.pt")
    cases = {
        "without.pt": f"weight '{next(iter(theirs))}' is missing",
        "more.pt": "weight 'extra.weight' has no place",
        "head.pt": r"weight 'fc.bias' is \[11\], the net has \[10\]",
        "text.pt": "holds more than tensors",
        "object.pt": "holds more than tensors",
        "nowhere.pt": "no such run folder or checkpoint",
    }
    for name, told in cases.items():
        with pytest.raises(UserError, match=told) as caught:
            start(tmp_path / name)
        assert "\n" not in str(caught.value) and ";" in str(caught.value)
    with pytest.raises(UserError, match=r"its net is tiny_cnn_bn, give --model tiny_cnn_bn"):
        start(run, "small_cnn")


def test_a_net_without_a_number_of_classes_is_told(tmp_path):
    torch.save(Plain().state_dict(), tmp_path / "w.pt")
    model = f"{__name__}:fixed"
    assert head_of(model, 10, SHAPE) == {}
    net, before, _ = start(tmp_path / "w.pt", model)
    assert not torch.equal(net.state_dict()["backbone.model.1.weight"], before["backbone.model.1.weight"])
    with pytest.raises(UsageError, match=r"nothing in .* goes by that number"):
        start(tmp_path / "w.pt", model, new_head=True)


def test_a_checkpoint_with_classes_in_another_order_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"class 0 is '0' and that of the training images is '1'.*--new-head"):
        start(run, classes=Classes(tuple("1023456789")))


def test_a_net_with_equal_keys_that_computes_something_else_is_refused(tmp_path):
    config = small_config(model="wrn-10-1-silu", epochs=1, strategy="fixed", data__max_train=64)
    folder = RunFolder.create(tmp_path / "run", config)
    train_here(config, folder, device="cpu", stop_after=1)
    with pytest.raises(UsageError, match="give --model wrn-10-1-silu"):
        start(folder.path, "wrn-10-1")


def test_the_command_tells_its_new_head_once_and_needs_no_file_to_resume(run, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (90, 8, 8), dtype=np.uint8), np.arange(90) % 3
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", image=x, label=y, test_image=x[:30], test_label=y[:30])
    theirs, _ = load_checkpointed(run)
    torch.save(theirs.backbone.state_dict(), "w.pt")
    words = ["--recipe", "digits", "--strategy", "fixed", "--dataset", "npz:x.npz", "--model", "tiny_cnn_bn"]
    words += [
        "--init-from",
        "w.pt",
        "--epochs",
        "2",
        "--attack.num-steps",
        "1",
        "--batch-size",
        "32",
        "--out",
        "run",
    ]
    monkeypatch.setattr("sys.argv", ["train", *words])
    assert train.main() == 0
    assert capsys.readouterr().out.count("begin anew: 10 classes there, 3 here") == 1
    assert read_config(tmp_path / "run" / "config.json").init_from == "w.pt"
    first = load_checkpointed(tmp_path / "run", which="last")[0].state_dict()
    trainer_config = read_config(tmp_path / "run" / "config.json")
    folder = RunFolder.create(tmp_path / "again", trainer_config)
    train_here(trainer_config, folder, device="cpu", stop_after=2)
    (tmp_path / "w.pt").unlink()
    train_here(trainer_config, folder, device="cpu")
    again = load_checkpointed(folder.path, which="last")[0].state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["new_head"] is False


def test_a_teacher_that_is_code_needs_trust_unless_it_is_the_targets_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = ["--recipe", "digits", "--strategy", "fixed", "--epochs", "1", "--data.max-train", "64"]
    few += ["--attack.num-steps", "1", "--batch-size", "32", "--data.max-test", "20"]

    def call(*words):
        monkeypatch.setattr("sys.argv", ["train", *few, *words])
        return train.main()

    assert call("--model", OWN, "--out", "own") == 0
    assert call("--method", "hat", "--model", OWN, "--teacher", "own", "--out", "a") == 0
    assert call("--method", "hat", "--teacher", "own", "--out", "b") == 2
    assert "its net is code" in capsys.readouterr().err and not (tmp_path / "b").exists()
    assert call("--method", "hat", "--teacher", "own", "--out", "b", "--trust") == 0
    assert call("--init-from", "own", "--model", OWN, "--out", "c") == 0
    assert call("--trust", "--out", "d") == 2
