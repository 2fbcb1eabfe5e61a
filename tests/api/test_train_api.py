"""``lasat_ray.train`` with data and nets of one's own: what it takes, what it gives back, how it fails."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lasat_ray
from lasat_ray import UsageError, UserError
from lasat_ray.runs.folder import RunFolder
from tests.api.conftest import QUICK, Net


def test_a_run_on_arrays_leaves_a_run_folder_that_explains_itself(run, arrays):
    config = RunFolder.open(run.folder).config()
    assert config == run.config and config.dataset == f"npz:{run.folder / 'data.npz'}"
    assert json.loads((run.folder / "summary.json").read_text()) == run.summary
    with np.load(run.folder / "data.npz") as file:
        assert len(file["image"]) == 240 and len(file["test_image"]) == 60
        both = np.concatenate([file["image"], file["test_image"]]).reshape(300, 8, 8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, arrays[0])), "images were changed or lost"
    assert run.notes == ("data: 60 of 300 images are held out as the test set; give test= to choose it",)


def test_the_result_shows_itself(run):
    assert set(run.accuracies) == {"clean_acc", "robust_acc_pgd2"}
    assert "clean_acc" in run._repr_html_() and str(run.folder) in repr(run)
    assert [record["epoch"] for record in run.records("epoch")] == [1]
    with torch.no_grad():
        assert run.net(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_the_module_is_copied_with_its_weights_and_left_alone(arrays, here):
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    settings = {**QUICK, "optim": {"lr": 1e-9}}
    found = lasat_ray.train("digits", data=arrays, net=net, out="a", progress=False, **settings)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
        trained = found.net.state_dict()[f"backbone.{name}"]
        torch.testing.assert_close(trained, value, atol=1e-4, rtol=0)


def test_frozen_layers_stay_and_a_loaded_net_trains_again(run, arrays, here):
    net = Net()
    net.layers[1].requires_grad_(False)
    found = lasat_ray.train("digits", data=arrays, net=net, out="a", progress=False, **QUICK)
    assert torch.equal(found.net.backbone.layers[1].weight, net.layers[1].weight)
    again = lasat_ray.train("digits", data=arrays, net=run.net, out="b", progress=False, **QUICK)
    start, end = run.net.state_dict(), again.net.backbone.state_dict()
    assert any(not torch.equal(value, end[name]) for name, value in start.items())


def test_kinds_of_data_train_the_same_net(run, arrays, here):
    x, y = arrays
    tensors = torch.from_numpy(x)[:, None], torch.from_numpy(y)
    same = {
        "tensors": tensors,
        "floats": (x / 255, y.tolist()),
        "dataset": TensorDataset(*tensors),
        "parts": {"train": (x, y)},
    }
    for name, data in same.items():
        torch.manual_seed(0)
        found = lasat_ray.train("digits", data=data, net=Net(), out=name, progress=False, **QUICK)
        assert found.accuracies == run.accuracies, name


def test_a_factory_that_can_be_imported_is_named_and_one_that_cannot_is_given(arrays, here, monkeypatch):
    module = types.ModuleType("nets_of_a_user")

    def small(*, num_classes, image_shape):
        return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(image_shape)), num_classes))

    small.__module__, small.__qualname__ = "nets_of_a_user", "small"
    module.small = small
    monkeypatch.setitem(sys.modules, "nets_of_a_user", module)
    found = lasat_ray.train("digits", data=arrays, net=small, out="a", progress=False, **QUICK)
    assert found.config.model == "nets_of_a_user:small"
    found = lasat_ray.train("digits", data=arrays, net=lambda num_classes: Net(num_classes), out="b", **QUICK)
    assert found.config.model.startswith("given:") and found.net


def test_class_names_travel_with_the_data(arrays, here):
    names = [f"digit {n}" for n in range(10)]
    found = lasat_ray.train("digits", data=arrays, class_names=names, out="a", progress=False, **QUICK)
    row = lasat_ray.explain(found, 0).summary[0]
    assert row["label"] in names and row["seen_as"] in names


def test_a_run_goes_on_with_its_net(arrays, here, monkeypatch):
    def stops(record):
        raise KeyboardInterrupt

    torch.manual_seed(0)
    settings = {**QUICK, "epochs": 2}
    whole = lasat_ray.train(
        "digits", data=arrays, net=(net := Net()), out="whole", progress=False, **settings
    )
    with monkeypatch.context() as patch:
        patch.setattr("lasat_ray.cli.display.TrainingDisplay._show_epoch", lambda self, record: stops(record))
        with pytest.raises(KeyboardInterrupt):
            lasat_ray.train("digits", data=arrays, net=net, out="part", progress=False, **settings)
    found = lasat_ray.train(resume="part", net=net, progress=False)
    assert found.accuracies == whole.accuracies
    with pytest.raises(UsageError, match=r"^net: is 'given:Sequential-.*; give the net that it began with"):
        lasat_ray.train(resume="part", net=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))


def test_another_process_is_told_to_give_the_net_again(run, monkeypatch):
    monkeypatch.setattr("lasat_ray.models.given._NETS", {})
    with pytest.raises(UsageError, match=r"given as an object from Python .*load_model\(RUN, net=\.\.\.\)"):
        lasat_ray.load_model(run.folder)
    assert lasat_ray.load_model(run.folder, net=Net())


def test_one_call_begins_a_run_and_finds_it_finished(arrays, here):
    settings = {**QUICK, "resume_or_start": True, "out": "a", "progress": False}
    net = Net()
    first = lasat_ray.train("digits", data=arrays, net=net, **settings)
    assert lasat_ray.train("digits", data=arrays, net=net, **settings).summary == first.summary
    with pytest.raises(UserError, match=r"^data: is not that of the run in a; give the same"):
        lasat_ray.train("digits", data=(255 - arrays[0], arrays[1]), net=net, **settings)


X = np.zeros((20, 8, 8), dtype=np.uint8)
Y = np.arange(20) % 2
LINES = [
    ({"attack": {"eps": 8.0}}, "attack.eps: 8 is out of range; give a budget above 0 and at most 1"),
    ({"optim.lrr": 1}, "optim.lrr: is not a setting; did you mean optim.lr"),
    ({"lr": 1}, "lr: is not a setting; did you mean optim.lr or policy.lr"),
    ({"epochs": "many"}, "epochs: 'many' is not accepted; give a whole number"),
    ({"optim": 3}, "optim: 3 is a single value and optim a group of settings; give optim={NAME: VALUE}"),
    ({"method": "bim"}, "method: 'bim' is unknown; choose one of"),
    ({"device": "gpu"}, "device: 'gpu' is not accepted; give one of: auto, cpu, cuda"),
    ({"log": ("mlflo",)}, "log: ('mlflo',) is not accepted; give one of: wandb, mlflow"),
    ({"num_workers": -1}, "num_workers: -1 is out of range; give 0 or more"),
    ({"compare": "pgd-at"}, "compare: is the command's alone; leave it out"),
    ({"resume": "nowhere"}, "resume: 'nowhere' holds no run"),
    ({"resume": "nowhere", "epochs": 3}, "epochs: cannot be set with resume"),
    ({"data": (X, Y[:5])}, "data: 20 images but 5 labels; make them equally many"),
    ({"data": (X + 3.0, Y)}, "data: pixels go from 3 to 3; give uint8 or floats in [0,1]"),
    ({"data": (X.astype(int), Y)}, "data: images are int64; give uint8, or floats in [0,1]"),
    ({"data": (X[0], Y)}, "data: images have shape [8, 8]; give [N,C,H,W], [N,H,W,C] or [N,H,W]"),
    ({"data": (X[..., None].repeat(2, 3), Y)}, "data: images have shape [20, 8, 8, 2]; 1 or 3 channels"),
    ({"data": (X, Y - 1)}, "data: image 0 has label -1; labels start at 0"),
    ({"data": (X, Y / 2)}, "data: labels are float64 of shape [20]; give whole numbers [N]"),
    ({"data": (X, Y * 0)}, "data: has images of one class alone"),
    ({"data": (X, Y), "class_names": ["a"]}, "data: image 1 has label 1 and there are 1 class names"),
    ({"data": (X, Y), "test": (X[:, :4], Y)}, "test: images are (1, 4, 8) (C,H,W) and training images are"),
    ({"data": (X, Y), "dataset": "digits"}, "dataset: is given beside data; leave one of the two out"),
    ({"data": DataLoader(TensorDataset(torch.zeros(2, 1, 8, 8)))}, "data: a DataLoader orders"),
    ({"data": 7}, "data: int is no data; give a name such as 'digits', (x, y)"),
    ({"data": {"tran": (X, Y)}}, "data: has parts tran; one has to be called 'train'"),
    ({"test": (X, Y)}, "test: has no effect with named data"),
    ({"net": 3}, "net: int is no net"),
    ({"net": nn.Linear(64, 10)}, "model: 'given:Linear-"),
    ({"net": lambda: 3}, "model: 'given:<lambda>' returned a int"),
]


@pytest.mark.parametrize(("given", "line"), LINES, ids=[line[:40] for _, line in LINES])
def test_what_cannot_work_is_one_line_and_leaves_nothing(given, line, here):
    args, settings = ((), given) if "resume" in given else (("digits",), {**QUICK, **given})
    with pytest.raises(UserError) as caught:
        lasat_ray.train(*args, progress=False, **settings)
    assert str(caught.value).replace("_lambda_", "<lambda>").startswith(line)
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)
    assert not any(here.iterdir()), "something was left behind"


def test_code_of_a_users_net_is_named_where_it_fails(arrays, here):
    class Breaks(Net):
        def forward(self, x):
            if self.training and len(x) > 2:
                raise RuntimeError("no more")
            return super().forward(x)

    with pytest.raises(
        UserError, match=r"raised RuntimeError: no more \(.*test_train_api.py line \d+, in forward\)"
    ):
        lasat_ray.train("digits", data=arrays, net=Breaks(), progress=False, **QUICK)


def test_floats_that_are_no_255ths_are_rounded_and_told(arrays, here):
    x, y = arrays
    found = lasat_ray.train("digits", data=(x / 256, y), out="a", progress=False, **QUICK)
    assert found.notes[0] == "data: pixels are rounded to 8 bits, by up to 0.50/255"


def test_own_data_alone_takes_the_recipe_of_ones_own_images(arrays, here, capsys):
    settings = {name: value for name, value in QUICK.items() if name != "batch_size"}
    found = lasat_ray.train(data=arrays, out="a", **settings)
    assert found.config.recipe == "images" and found.config.model == "small_cnn"
    assert "Recipe images for 240 training images (1, 8, 8) (C,H,W)" in capsys.readouterr().out


@pytest.mark.ray
def test_workers_are_sent_data_and_net(arrays, here):
    """A class of this file, which workers could not import by that name, and what cannot be sent."""

    class Local(Net):
        pass

    torch.manual_seed(0)
    found = lasat_ray.train(
        "digits", data=arrays, net=Local(), num_workers=2, out="a", progress=False, **QUICK
    )
    assert found.config.model.startswith("given:Local-") and found.summary["n_test"] == 60
    unsent = Local()
    unsent.hook = (n for n in range(3))
    with pytest.raises(
        UserError, match=r"^num_workers: 'given:test_.*lambda_' cannot be sent to workers \(TypeError"
    ):
        lasat_ray.train("digits", data=arrays, net=lambda: unsent, num_workers=1, out="b", **QUICK)
