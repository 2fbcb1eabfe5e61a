"""RobustBench's nets by their weights: its logits, or one line; never another net's in silence."""

import json

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.errors import UsageError, UserError
from lasat_ray.evaluate import main
from lasat_ray.models import build_classifier
from lasat_ray.runs.foreign import load_foreign, open_foreign
from tests.support.evaluation_nets import digits
from tests.support.robustbench_nets import (
    MEAN,
    STD,
    dm_preact,
    dm_preact_state,
    dm_wide,
    dm_wide_state,
    preact,
    preact_state,
    resnet,
    resnet_state,
    wide,
    wide_state,
)

SHAPE = {"num_classes": 10, "image_shape": (3, 32, 32)}
X = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
PIXEL = {"mu": torch.tensor(MEAN).reshape(1, 3, 1, 1), "sigma": torch.tensor(STD).reshape(1, 3, 1, 1)}


def saved(tmp_path, state):
    torch.save(state, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def opened(model, file, images=None, mean=0.0, std=1.0, **shape):
    return open_foreign(model, file, images=images, mean=mean, std=std, **{**SHAPE, **shape})


@pytest.mark.parametrize(
    ("asked", "found", "state", "formula"),
    [
        ("resnet18-8", "resnet18-8", resnet_state(8), resnet),
        ("resnet50-4", "resnet50-4", resnet_state(4, (3, 4, 6, 3), deep=True), resnet),
        ("wrn-16-2", "wrn-16-2", wide_state(16, 2), wide),
        ("wrn-10-1", "wrn-10-1", wide_state(10, 1), wide),
        ("wrn-16-2-silu", "dm_wrn-16-2-silu", dm_wide_state(16, 2), dm_wide),
        ("dm_wrn-16-2-silu", "dm_wrn-16-2-silu", dm_wide_state(16, 2), dm_wide),
        ("dm_wrn-10-1", "dm_wrn-10-1", dm_wide_state(10, 1), lambda s, x: dm_wide(s, x, F.relu)),
        ("preact_resnet18-8", "dm_preact_resnet18-8", dm_preact_state(8), dm_preact),
        ("dm_preact_resnet18-8", "dm_preact_resnet18-8", dm_preact_state(8), dm_preact),
        (
            "preact_resnet18-8",
            "preact_resnet18_bn-8",
            preact_state(8, final=True),
            lambda s, x: preact(s, x, raw=False),
        ),
        (
            "preact_resnet18_raw-8",
            "preact_resnet18_raw-8",
            preact_state(8, final=False),
            lambda s, x: preact(s, x, raw=True),
        ),
        (
            "preact_resnet18_active-8",
            "preact_resnet18_active-8",
            preact_state(8, final=False),
            lambda s, x: preact(s, x, raw=False),
        ),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_published_weights_give_the_published_logits(tmp_path, asked, found, state, formula, wrapped):
    file = saved(tmp_path, {f"module.{key}": value for key, value in state.items()} if wrapped else state)
    net = opened(asked, file)
    assert net.model == found and bool(net.notes) == (asked != found)
    torch.testing.assert_close(net.net(X), formula(state, X), rtol=1e-4, atol=1e-4)


def test_wrn_28_10_silu_and_the_full_preact_resnet18(tmp_path):
    state = dm_wide_state(28, 10)
    torch.testing.assert_close(
        opened("wrn-28-10-silu", saved(tmp_path, state)).net(X[:1]),
        dm_wide(state, X[:1]),
        rtol=1e-3,
        atol=1e-3,
    )
    state = preact_state(64, final=True)
    net = load_foreign("preact_resnet18", saved(tmp_path, {**state, **PIXEL}), **SHAPE)
    normal = (X - PIXEL["mu"]) / PIXEL["sigma"]
    torch.testing.assert_close(net(X), preact(state, normal, raw=False), rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match=r"--mean: .* holds its own normalization; leave it out"):
        load_foreign("preact_resnet18", tmp_path / "w.pt", mean=MEAN, **SHAPE)


def test_the_file_of_andriushchenko_2020_gives_its_block_away(tmp_path):
    """Two stages of training in one file, and copies of the first layers under a third name."""
    state = preact_state(8, final=False)
    copies = {
        f"model_preact_hl1.1.{key[6:]}": value for key, value in state.items() if key.startswith("conv1.")
    }
    file = saved(tmp_path, {"last": {**state, **copies}, "best": {}})
    net = opened("preact_resnet18-8", file)
    assert net.model == "preact_resnet18_raw-8"
    torch.testing.assert_close(net.net(X), preact(state, X, raw=True), rtol=1e-4, atol=1e-4)


def test_keys_of_two_nets_without_evidence_are_refused(tmp_path):
    file = saved(tmp_path, preact_state(8, final=False))
    for images in (None, X):
        with pytest.raises(UsageError) as caught:
            opened("preact_resnet18-8", file, images)
        assert "may be preact_resnet18_active-8 or preact_resnet18_raw-8" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "state", "told"),
    [
        ("wrn-16-2", dm_wide_state(16, 2), "name dm_wrn-16-2-silu, or dm_wrn-16-2 where"),
        ("dm_preact_resnet18-8", preact_state(8, final=True), "those of preact_resnet18_bn, not of"),
        ("preact_resnet18_raw-8", preact_state(8, final=True), "name preact_resnet18_bn"),
        ("preact_resnet18_bn-8", preact_state(8, final=False), "name preact_resnet18"),
        ("resnet18-8", preact_state(8, final=False), "is missing"),
        ("preact_resnet18-16", preact_state(8, final=True), "the net has"),
        ("wrn-28-2-silu", dm_wide_state(16, 2), "is missing"),
    ],
)
def test_weights_of_another_net_are_refused_in_one_line(tmp_path, model, state, told):
    with pytest.raises(UserError) as caught:
        opened(model, saved(tmp_path, state))
    assert told in str(caught.value) and "w.pt" in str(caught.value) and "\n" not in str(caught.value)


def trained(name, mean=0.0, std=1.0, steps=60):
    """A small net after some updates on the digits: its statistics are of its own formula."""
    torch.manual_seed(0)
    net = build_classifier(name, num_classes=10, image_shape=(1, 8, 8), mean=mean, std=std).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    images = digits("train")
    for _ in range(steps):
        row = torch.randint(len(images.x), (64,))
        optimizer.zero_grad()
        F.cross_entropy(net(images.x[row] / 255), images.y[row]).backward()
        optimizer.step()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.1
    with torch.no_grad():
        for _ in range(40):  # the statistics of the last weights
            net(images.x[torch.randint(len(images.x), (64,))] / 255)
    return net.eval()


SMALL = {"num_classes": 10, "image_shape": (1, 8, 8)}


@pytest.mark.parametrize("form", ["_active", "_raw"])
def test_statistics_tell_which_of_two_nets_was_trained(tmp_path, form):
    net = trained(f"preact_resnet18{form}-8")
    other = {"_active": "_raw", "_raw": "_active"}[form]
    x = digits().x[:200] / 255
    file = saved(tmp_path, net.backbone.state_dict())
    found = opened("preact_resnet18-8", file, x, **SMALL)
    assert found.model == f"preact_resnet18{form}-8" and "by its BatchNorm statistics" in found.notes[0]
    torch.testing.assert_close(found.net(x), net(x))
    with pytest.raises(UsageError, match=f"are those of preact_resnet18{form}-8, not of"):
        opened(f"preact_resnet18{other}-8", file, x, **SMALL)


@pytest.mark.parametrize("name", ["wrn-10-1", "wrn-10-1-silu", "dm_wrn-10-1-silu"])
def test_an_activation_that_the_statistics_contradict_is_refused(tmp_path, name):
    net, x = trained(name), digits().x[:200] / 255
    file = saved(tmp_path, net.backbone.state_dict())
    torch.testing.assert_close(opened(name, file, x, **SMALL).net(x), net(x))
    twin = name.removesuffix("-silu") if name.endswith("-silu") else f"{name}-silu"
    with pytest.raises(UsageError, match=f"those of {name}, not of {twin}"):
        opened(twin, file, x, **SMALL)


def test_a_forgotten_normalization_is_told(tmp_path):
    net, x = trained("wrn-10-1", mean=0.3, std=0.25), digits().x[:200] / 255
    file = saved(tmp_path, net.backbone.state_dict())
    assert not opened("wrn-10-1", file, x, 0.3, 0.25, **SMALL).notes
    (note,) = opened("wrn-10-1", file, x, **SMALL).notes
    assert "do not fit these images" in note and "--mean and --std" in note


def test_evaluate_names_what_it_recognized_and_exports_it_again(tmp_path, capsys):
    net = trained("dm_wrn-10-1-silu", mean=0.3, std=0.25)
    state = {**net.backbone.state_dict(), "mean": net.mean, "std": net.std}
    file = saved(tmp_path, state)
    few = ["--attacks", "clean", "--n-examples", "40", "--sanity-examples", "4", "--dataset", "digits"]
    zoo = ["--export-robustbench", str(tmp_path / "zoo"), "--out", str(tmp_path / "out")]
    assert main(["wrn-10-1-silu", "--weights", str(file), *few, *zoo]) == 0
    assert "by its keys 'wrn-10-1-silu' is dm_wrn-10-1-silu" in " ".join(capsys.readouterr().out.split())
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (report["model"], report["architecture"]) == ("dm_wrn-10-1-silu", "WideResNet-10-1-silu")
    (exported,) = (tmp_path / "zoo").rglob("*.pt")
    again = torch.load(exported, weights_only=True)
    x = digits().x[:20] / 255
    torch.testing.assert_close(dm_wide(again, x), net(x), rtol=1e-4, atol=1e-4)
