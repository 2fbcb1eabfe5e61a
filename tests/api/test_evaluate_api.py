"""``lasat_ray.evaluate`` and ``lasat_ray.attack``: the same numbers as the command, for anybody's net."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lasat_ray
from lasat_ray import UserError
from lasat_ray.evaluate import main
from tests.api.conftest import Net

FAST = {"attacks": ("clean", "pgd-3"), "sanity_examples": 0}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    return Net()


@pytest.fixture(scope="module")
def batch(arrays):
    x, y = arrays
    return torch.from_numpy(x[:40])[:, None], torch.from_numpy(y[:40])


def test_a_run_is_evaluated_as_the_command_does_it(run, here):
    found = lasat_ray.evaluate(run, out="api", n_examples=30, **FAST)
    words = [str(run.folder), "--out", "command", "--n-examples", "30", "--sanity-examples", "0"]
    assert main([*words, "--attacks", "clean", "pgd-3"]) == 0
    theirs = json.loads((here / "command" / "evaluation.json").read_text())
    assert found.accuracy == {name: entry["accuracy"] for name, entry in theirs["attacks"].items()}
    written = json.loads((here / "api" / "evaluation.json").read_text())
    assert written == json.loads(json.dumps(found.report))
    assert found.folder == Path("api") and "pgd-3" in found._repr_html_()


def test_kinds_of_data_give_the_same_figures(run, batch):
    x, y = batch
    loader = DataLoader(TensorDataset(x, y), batch_size=7)
    array = (x[:, 0].numpy(), y.numpy())
    results = [
        lasat_ray.evaluate(run.net, data, **FAST, eps=0.2) for data in ((x, y), loader, array, (x / 255, y))
    ]
    assert all(found.accuracy == results[0].accuracy for found in results)
    assert all(found.folder is None and found.summary["n"] == 40 for found in results)


def test_a_hugging_face_dataset_is_known_by_its_methods(run, arrays):
    from PIL import Image

    x, y = arrays

    class Label:
        names = tuple(map(str, range(10)))

    class Rows:
        def __init__(self):
            self.features = {"img": object(), "label": Label()}
            self.column_names = ["img", "label"]

        def __len__(self):
            return 20

        def __getitem__(self, n):
            return {"img": Image.fromarray(x[n]), "label": int(y[n])}

    found = lasat_ray.evaluate(run, {"train": Rows(), "test": Rows()}, **FAST)
    assert found.accuracy == lasat_ray.evaluate(run, (x[:20], y[:20]), **FAST).accuracy


def test_labels_are_matched_by_the_names_of_classes(arrays, here):
    from tests.api.conftest import QUICK

    names = [f"d{n}" for n in range(10)]
    run = lasat_ray.train("digits", data=arrays, class_names=names, out="a", progress=False, **QUICK)
    x, y = arrays
    plain = lasat_ray.evaluate(run, (x, y), **FAST).accuracy
    turned = lasat_ray.evaluate(run, (x, 9 - y), class_names=names[::-1], **FAST).accuracy
    assert plain == turned
    with pytest.raises(UserError, match="class 0 is 'x0', which is no class of the net"):
        lasat_ray.evaluate(run, (x, y), class_names=[f"x{n}" for n in range(10)], **FAST)


def test_a_module_keeps_mode_place_and_gradients(net, batch):
    net.train()
    net.layers[1].eval()
    lasat_ray.evaluate(net, batch, **FAST)
    lasat_ray.attack(net, *batch, steps=1)
    assert net.training and not net.layers[1].training and all(p.requires_grad for p in net.parameters())
    assert all(p.grad is None for p in net.parameters())
    net.train()


def test_every_attack_by_name_keeps_its_ball_and_the_kind_of_x(net, batch):
    x, y = batch[0][:6], batch[1][:6]
    eps = torch.tensor([0.02, 0.1, 0.2, 0.02, 0.1, 0.2])
    for name in ("pgd", "fgsm", "cw", "pgd-3", "aa", "apgd-ce", "square"):
        x_adv = lasat_ray.attack(net, x, y, attack=name, eps=eps, steps=3)
        size = (x_adv - x / 255).abs().amax((1, 2, 3))
        assert x_adv.dtype == torch.float32 and x_adv.shape == x.shape
        assert (size <= eps + 1e-6).all() and x_adv.min() >= 0 and x_adv.max() <= 1, name


def test_each_image_has_its_own_budget_steps_and_size(net, batch):
    """A batch of unlike attacks equals the images one by one, whatever the size of the parts."""
    x, y = batch[0][:9].double() / 255, batch[1][:9]
    eps, steps, size = np.linspace(0.02, 0.3, 9), np.arange(1, 10), np.linspace(0.01, 0.1, 9)
    given = {"norm": "l2", "random_start": False}
    together = lasat_ray.attack(
        net.double(), x, y, eps=eps, steps=steps, step_size=size, **given, batch_size=4
    )
    for n in range(9):
        own = {"eps": eps[n], "steps": int(steps[n]), "step_size": size[n]}
        alone = lasat_ray.attack(net, x[n : n + 1], y[n : n + 1], **own, **given)
        torch.testing.assert_close(together[n], alone[0], rtol=0, atol=1e-12)
    net.float()
    assert ((together - x).flatten(1).norm(dim=1) <= torch.from_numpy(eps) + 1e-9).all()


def test_the_parts_of_a_batch_draw_the_same_starts(net, batch):
    whole = lasat_ray.attack(net, *batch, eps=0.1, steps=2)
    parts = lasat_ray.attack(net, *batch, eps=0.1, steps=2, batch_size=7)
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-6)
    other = lasat_ray.attack(net, *batch, eps=0.1, steps=2, seed=1)
    assert not torch.equal(whole, other)


def test_what_attack_makes_is_what_evaluate_counts(net, batch):
    x, y = batch
    found = lasat_ray.evaluate(
        net, batch, attacks=("clean", "pgd-5"), eps=0.1, all_steps=True, sanity_examples=0
    )
    x_adv = lasat_ray.attack(net, x, y, eps=0.1, steps=5)
    with torch.no_grad():
        right = (net(x / 255).argmax(1) == y) & (net(x_adv).argmax(1) == y)
    assert found.accuracy["pgd-5"] == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize("layout", ["NHWC", "NHW"])
def test_arrays_come_back_as_they_lay(run, arrays, layout):
    x, y = arrays[0][:5] / 255, arrays[1][:5]
    x = x[..., None] if layout == "NHWC" else x
    x_adv = lasat_ray.attack(run, x, y, eps="8/255", steps=1)
    assert isinstance(x_adv, np.ndarray) and x_adv.shape == x.shape and x_adv.dtype == x.dtype
    assert 0 < np.abs(x_adv - x).max() <= 8 / 255 + 1e-6


class Sizes(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, n):
        return torch.zeros(1, 8 + n, 8), n


X, Y = torch.zeros(4, 1, 8, 8), [0, 1, 2, 3]
LINES = [
    (lambda net: lasat_ray.attack(net, X, Y, eps=8), "eps: 8 is out of range; give 0 to 1"),
    (lambda net: lasat_ray.attack(net, X, Y, eps=[0.1, 0.2]), "eps: has shape [2] for 4 images"),
    (lambda net: lasat_ray.attack(net, X, Y, eps=[0, 0, 2, 0]), "eps: 2 of image 2 is out of range"),
    (lambda net: lasat_ray.attack(net, X, Y, eps="8"), "eps: 8 is out of range"),
    (lambda net: lasat_ray.attack(net, X, Y, eps="x"), "eps: 'x' is not a budget; write it as 8/255"),
    (lambda net: lasat_ray.attack(net, X, Y, steps=0), "steps: 0 is out of range"),
    (lambda net: lasat_ray.attack(net, X, Y, steps=1.5), "steps: 1.5 is no number of steps"),
    (lambda net: lasat_ray.attack(net, X, Y, norm="l1"), "norm: 'l1' is unknown; choose one of: l2, linf"),
    (lambda net: lasat_ray.attack(net, X, Y, loss="dlr"), "loss: 'dlr' is unknown; choose one of: ce"),
    (lambda net: lasat_ray.attack(net, X, Y, attack="pdg"), "attack: 'pdg' is unknown"),
    (lambda net: lasat_ray.attack(net, X, Y, restarts=0), "restarts: 0 is out of range"),
    (lambda net: lasat_ray.attack(net, X * 3 + 3, Y), "x: pixels go from 3 to 3"),
    (lambda net: lasat_ray.attack(net, X, [0, 1, 2, 30]), "test image 3: label 30 is outside 0..9"),
    (lambda net: lasat_ray.attack("nowhere", X, Y), "net: str is no module, run folder or checkpoint"),
    (lambda net: lasat_ray.evaluate(net), "data: is missing"),
    (lambda net: lasat_ray.evaluate("nowhere"), "net: 'nowhere' is no run folder or checkpoint"),
    (lambda net: lasat_ray.evaluate(3, "digits"), "net: int is no net"),
    (lambda net: lasat_ray.evaluate(net, (X, Y), attacks="pgd"), "attacks: 'pgd' lacks its number"),
    (lambda net: lasat_ray.evaluate(net, (X, Y), eps=8), "eps: 8 is out of range"),
    (lambda net: lasat_ray.evaluate(net, (X, Y), norm="l1"), "norm: 'l1' is unknown"),
    (lambda net: lasat_ray.evaluate(net, (X, Y), num_workers=-1), "num_workers: -1 is out of range"),
    (lambda net: lasat_ray.evaluate(net, (X, Y), weights="a"), "weights: needs the name of a net, not Net"),
    (lambda net: lasat_ray.evaluate(net, Sizes()), "data: 'Sizes' image 1 is float32 [1, 9, 8], the first"),
    (lambda net: lasat_ray.evaluate(net, [(X[0],)] * 3), "data: 'list' item 0 is a tuple of 1; a data set"),
    (lambda net: lasat_ray.evaluate(net, "digit"), "dataset: 'digit' is unknown"),
    (lambda net: lasat_ray.evaluate(net, "digits", class_names=["a"]), "class_names: has no effect"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "line"), LINES, ids=[line[:40] for _, line in LINES])
def test_what_cannot_work_is_one_line(call, line, net, here):
    with pytest.raises(UserError) as caught:
        call(net)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
    assert not any(here.iterdir())
