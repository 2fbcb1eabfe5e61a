"""Nets from run folders, checkpoint files and other people's weights; each fault in one line."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lasat_ray
from lasat_ray.api.commands.export import write_safetensors
from lasat_ray.errors import UsageError, UserError
from lasat_ray.models import build_classifier
from lasat_ray.runs.checkpoint import save_checkpoint
from lasat_ray.runs.foreign import load_foreign
from lasat_ray.runs.load import load_checkpointed, load_model

SHAPE = (1, 8, 8)
X = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))


def card(model="small_cnn", **changes):
    return {"model": model, "precision": "fp32", "num_classes": 10, "image_shape": [1, 8, 8], **changes}


@pytest.fixture
def net():
    torch.manual_seed(1)
    return build_classifier("small_cnn", num_classes=10, image_shape=SHAPE).eval()


@pytest.fixture
def run(tmp_path, net):
    """A run folder whose last checkpoint holds averaged weights beside others."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    best = folder / "checkpoints" / "best.safetensors"
    save_checkpoint(best, {"target_net": net.state_dict(), "card": card()})
    torch.manual_seed(2)
    other = build_classifier("small_cnn", num_classes=10, image_shape=SHAPE)
    average = {"net": net.state_dict(), "updates": 3}
    last = {"target_net": other.state_dict(), "card": card(), "average": average}
    save_checkpoint(folder / "checkpoints" / "last.safetensors", last)
    return folder


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_net_that_a_run_deploys_is_loaded_ready_for_use(run, net, which):
    loaded = lasat_ray.load_model(run, which=which)
    assert torch.equal(loaded(X), net(X))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_checkpoint_file_is_as_good_as_its_folder(run, net):
    loaded, found = load_checkpointed(run / "checkpoints" / "best.safetensors")
    assert torch.equal(loaded(X), net(X))
    assert found["num_classes"] == 10


def test_a_run_that_never_validated_has_only_its_last_net(run, net):
    (run / "checkpoints" / "best.safetensors").unlink()
    assert torch.equal(load_model(run)(X), net(X))


def test_double_precision_stays_double(tmp_path):
    net = build_classifier("small_cnn", num_classes=10, image_shape=SHAPE, precision="fp64").eval()
    save_checkpoint(
        tmp_path / "c.safetensors", {"target_net": net.state_dict(), "card": card(precision="fp64")}
    )
    assert torch.equal(load_model(tmp_path / "c.safetensors")(X), net(X))


CODE = """
import pathlib
from torch import nn
pathlib.Path(__file__).with_name("was_run").touch()
def build(*, num_classes, image_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[1] * image_shape[2], num_classes))
"""


def test_code_named_by_a_checkpoint_runs_only_with_trust(tmp_path, monkeypatch):
    (tmp_path / "their_code.py").write_text(CODE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    file = tmp_path / "c.safetensors"
    weights = {"backbone.1.weight": torch.rand(10, 64), "backbone.1.bias": torch.rand(10)}
    weights |= {"mean": torch.zeros(1, 1, 1), "std": torch.ones(1, 1, 1)}
    save_checkpoint(file, {"target_net": weights, "card": card("their_code:build")})
    with pytest.raises(UserError, match="'their_code:build'; if you trust it, pass trust=True") as caught:
        load_model(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "was_run").exists()
    expected = X.flatten(1) @ weights["backbone.1.weight"].T + weights["backbone.1.bias"]
    torch.testing.assert_close(load_model(file, trust=True)(X), expected)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda tree: tree["target_net"].pop("backbone.fc.bias"), "weight 'backbone.fc.bias' is missing"),
        (
            lambda tree: tree["target_net"].update(more=torch.zeros(1)),
            "weight 'more' has no place in the net",
        ),
        (lambda tree: tree["card"].update(num_classes=7), "fc.weight' is .10, 128., the net has .7, 128."),
        (lambda tree: tree["card"].update(model="resnet99"), "'resnet99' is unknown"),
        (lambda tree: tree.pop("card"), "holds no target net with its card"),
    ],
)
def test_a_checkpoint_that_does_not_fit_its_net_is_refused_in_one_line(tmp_path, net, spoil, told):
    tree = {"target_net": dict(net.state_dict()), "card": card()}
    spoil(tree)
    save_checkpoint(tmp_path / "c.safetensors", tree)
    with pytest.raises(UserError, match=told) as caught:
        load_model(tmp_path / "c.safetensors")
    assert "\n" not in str(caught.value)


def test_places_without_a_checkpoint_are_named(tmp_path):
    with pytest.raises(UserError, match="no such run folder or checkpoint"):
        load_model(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no checkpoint"):
        load_model(tmp_path)
    (tmp_path / "text.safetensors").write_text(json.dumps({"weights": 1}))
    with pytest.raises(UserError, match="not a whole checkpoint"):
        load_model(tmp_path / "text.safetensors")
    with pytest.raises(UserError, match="which: 'middle'"):
        load_model(tmp_path, which="middle")


def wide_weights():
    torch.manual_seed(3)
    net = build_classifier("wrn-10-1", num_classes=10, image_shape=(3, 16, 16)).eval()
    return net, net.backbone.state_dict()


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w, "epoch": 3}])
def test_a_published_wide_resnet_is_read_with_or_without_wrappers(tmp_path, prefix, wrap):
    net, weights = wide_weights()
    unused = {"sub_block1.layer.0.conv1.weight": torch.zeros(1)}  # in RobustBench's files, used by no pass
    torch.save(wrap({prefix + key: value for key, value in {**weights, **unused}.items()}), tmp_path / "w.pt")
    loaded = load_foreign("wrn-10-1", tmp_path / "w.pt", num_classes=10, image_shape=(3, 16, 16))
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(loaded(x), net(x))


def test_safetensors_and_a_normalization_in_front(tmp_path):
    net, weights = wide_weights()
    save_file(weights, tmp_path / "w.safetensors")
    loaded = load_foreign(
        "wrn-10-1", tmp_path / "w.safetensors", num_classes=10, image_shape=(3, 16, 16), mean=0.5, std=0.25
    )
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(loaded(x), net.backbone((x - 0.5) / 0.25))


def test_an_export_of_ours_brings_its_own_normalization(tmp_path):
    torch.manual_seed(0)
    shape = {"num_classes": 10, "image_shape": (3, 16, 16)}
    net = build_classifier("wrn-10-1", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), **shape).eval()
    told = {"model": "wrn-10-1", "precision": "fp32", **shape}
    write_safetensors(net, told, torch.rand(1, 3, 16, 16), tmp_path / "w.safetensors")
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(load_foreign("wrn-10-1", tmp_path / "w.safetensors", **shape)(x), net(x))
    with pytest.raises(UsageError, match=r"--std: .* holds its own normalization; leave it out"):
        load_foreign("wrn-10-1", tmp_path / "w.safetensors", std=(0.2, 0.3, 0.4), **shape)


def test_a_net_from_elsewhere_may_hold_buffers_called_mean_and_std(tmp_path, monkeypatch):
    (tmp_path / "normalizing.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.register_buffer('mean', torch.tensor(0.0))\n"
        "        self.register_buffer('std', torch.tensor(1.0))\n"
        "        self.layer = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        return self.layer((x.flatten(1) - self.mean) / self.std)\n"
        "def build(*, num_classes, image_shape):\n"
        "    return Net()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    weights = {"mean": torch.tensor(0.5), "std": torch.tensor(0.25)}
    weights |= {"layer.weight": torch.ones(10, 64), "layer.bias": torch.zeros(10)}
    torch.save(weights, tmp_path / "w.pt")
    loaded = load_foreign("normalizing:build", tmp_path / "w.pt", num_classes=10, image_shape=SHAPE)
    torch.testing.assert_close(loaded(X)[:, 0], ((X.flatten(1) - 0.5) / 0.25).sum(1))


def foreign_fault(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UserError) as caught:
        load_foreign("wrn-10-1", tmp_path / "w.pt", num_classes=10, image_shape=(3, 16, 16))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_faults_of_foreign_weights_are_told_in_one_line(tmp_path):
    _, weights = wide_weights()
    short = {key: value for key, value in weights.items() if key != "block2.layer.0.convShortcut.weight"}
    assert "weight 'block2.layer.0.convShortcut.weight' is missing" in foreign_fault(tmp_path, short)
    assert "holds no state dict" in foreign_fault(tmp_path, [1, 2])
    assert "holds more than tensors" in foreign_fault(tmp_path, nn.Linear(2, 2))
    (tmp_path / "w.pt").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"w\.pt: "):
        load_foreign("wrn-10-1", tmp_path / "w.pt", num_classes=10, image_shape=(3, 16, 16))
    with pytest.raises(UserError, match="no such file of weights"):
        load_foreign("wrn-10-1", tmp_path / "none.pt", num_classes=10, image_shape=(3, 16, 16))
