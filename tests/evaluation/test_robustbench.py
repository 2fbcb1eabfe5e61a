"""Exchange with RobustBench: a plain loader reads what we export; what it publishes is evaluated here."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lasat_ray.evaluate import main
from lasat_ray.models import build_classifier
from lasat_ray.runs.checkpoint import save_checkpoint
from tests.commands.test_evaluate import make_run

KEYS = {
    "link",
    "name",
    "authors",
    "additional_data",
    "number_forward_passes",
    "dataset",
    "venue",
    "architecture",
    "eps",
    "clean_acc",
    "reported",
    "autoattack_acc",
    "footnote",
    "unreliable",
}
"""Of model_info/cifar10/Linf/*.json there."""


class Block(nn.Module):
    """A wide residual block under the names of RobustBench's architecture, written for this test."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inside), nn.BatchNorm2d(outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.same = inside == outside
        if not self.same:
            self.convShortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x):
        out = F.relu(self.bn1(x))
        skip = x if self.same else self.convShortcut(out)
        return skip + self.conv2(F.relu(self.bn2(self.conv1(out))))


class Stage(nn.Module):
    def __init__(self, count, inside, outside, stride):
        super().__init__()
        blocks = [
            Block(inside if n == 0 else outside, outside, stride if n == 0 else 1) for n in range(count)
        ]
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class PlainWideResNet(nn.Module):
    """What a reader without this package builds."""

    def __init__(self, depth, widen, num_classes, channels):
        super().__init__()
        count, width = (depth - 4) // 6, [16, 16 * widen, 32 * widen, 64 * widen]
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.block1 = Stage(count, width[0], width[1], 1)
        self.block2 = Stage(count, width[1], width[2], 2)
        self.block3 = Stage(count, width[2], width[3], 2)
        self.bn1 = nn.BatchNorm2d(width[3])
        self.fc = nn.Linear(width[3], num_classes)

    def forward(self, x):
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(out)).mean((2, 3)))


@pytest.fixture(scope="module")
def wide():
    """An untrained wrn-10-2 for digits whose statistics are not the initial ones."""
    torch.manual_seed(0)
    net = build_classifier("wrn-10-2", num_classes=10, image_shape=(1, 8, 8)).train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(32, 1, 8, 8))
    return net.eval()


CARD = {"model": "wrn-10-2", "precision": "fp32", "num_classes": 10, "image_shape": [1, 8, 8]}
FEW = ["--n-examples", "12", "--sanity-examples", "4"]


def test_a_plain_loader_reads_the_export(wide, tmp_path):
    run = make_run(tmp_path / "run", wide.state_dict(), CARD)
    words = ["--attacks", "clean", "pgd-2", "--export-robustbench", str(tmp_path / "zoo"), *FEW]
    assert main([str(run), *words]) == 0
    (weights,) = (tmp_path / "zoo" / "models" / "digits" / "Linf").glob("*.pt")
    plain = PlainWideResNet(10, 2, 10, 1)
    plain.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(plain.eval()(x), wide(x))
    card = json.loads((tmp_path / "zoo/model_info/digits/Linf" / f"{weights.stem}.json").read_text())
    assert {*card} == KEYS
    report = json.loads((run / "evaluation.json").read_text())
    assert card["clean_acc"] == f"{100 * report['attacks']['clean']['accuracy']:.2f}"
    assert card["autoattack_acc"] == card["reported"] == ""
    assert (card["architecture"], card["eps"], card["additional_data"]) == ("WideResNet-10-2", "0.2", False)
    assert card["unreliable"] is (report["sanity"]["verdict"] != "passed")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_checkpoint_is_evaluated(wide, tmp_path, prefix):
    plain = PlainWideResNet(10, 2, 10, 1)
    plain.load_state_dict(wide.backbone.state_dict())
    torch.save({prefix + key: value for key, value in plain.state_dict().items()}, tmp_path / "Theirs2022.pt")
    words = [
        "--weights",
        str(tmp_path / "Theirs2022.pt"),
        "--dataset",
        "digits",
        "--attacks",
        "clean",
        "fgsm",
    ]
    assert main(["wrn-10-2", *words, "--out", str(tmp_path / "theirs"), *FEW]) == 0
    run = make_run(tmp_path / "run", wide.state_dict(), CARD)
    assert main([str(run), "--attacks", "clean", "fgsm", "--eps", "8/255", *FEW]) == 0
    ours, theirs = (
        {name: entry["accuracy"] for name, entry in json.loads(file.read_text())["attacks"].items()}
        for file in (run / "evaluation.json", tmp_path / "theirs" / "evaluation.json")
    )
    assert ours == theirs


def test_a_missing_weight_key_is_one_line(wide, tmp_path, capsys):
    weights = {key: value for key, value in wide.backbone.state_dict().items() if key != "bn1.running_var"}
    torch.save(weights, tmp_path / "w.pt")
    words = ["--weights", str(tmp_path / "w.pt"), "--dataset", "digits", "--attacks", "clean"]
    assert main(["wrn-10-2", *words]) == 1
    assert "weight 'bn1.running_var' is missing" in capsys.readouterr().err


def test_a_net_that_normalizes_is_not_exported_as_if_it_did_not(wide, tmp_path, capsys):
    state = {**wide.state_dict(), "mean": torch.full((1, 1, 1), 0.5)}
    run = make_run(tmp_path / "run", state, CARD)
    words = ["--attacks", "clean", "--export-robustbench", str(tmp_path / "zoo"), *FEW]
    assert main([str(run), *words]) == 1
    assert "normalizes its input" in capsys.readouterr().err
    assert not (run / "evaluation.json").exists()


def test_only_a_net_of_one_precision_is_exported(wide, tmp_path, capsys):
    state = {
        key: value.double() if value.is_floating_point() else value
        for key, value in wide.state_dict().items()
    }
    run = tmp_path / "run"
    make_run(run, wide.state_dict(), CARD)
    tree = {"target_net": state, "card": {**CARD, "precision": "fp64"}}
    save_checkpoint(run / "checkpoints" / "best.safetensors", tree)
    assert main([str(run), "--attacks", "clean", "--export-robustbench", str(tmp_path / "zoo"), *FEW]) == 1
    assert "only nets in fp32 are exported" in capsys.readouterr().err
