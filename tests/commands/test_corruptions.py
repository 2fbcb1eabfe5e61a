"""Common corruptions from files as published, or made from the clean set: a table, its mean, the report."""

import json
import sys
import types
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch

from lasat_ray.evaluate import main
from lasat_ray.evaluation import make_corruptions
from lasat_ray.evaluation.corruptions import COMMON, means
from lasat_ray.models import build_classifier
from lasat_ray.report import main as report_main
from tests.commands.test_evaluate import make_run
from tests.support.evaluation_nets import digits

EXTRA = ("spatter", "saturate")


def files(folder, kinds=("fog", "gaussian_noise", "spatter"), count=40):
    """Digits of which severity s of a kind lacks the first (kind number + 1) * s rows of pixels."""
    images = digits(count=count)
    x = images.x.permute(0, 2, 3, 1).numpy()
    folder.mkdir(parents=True, exist_ok=True)
    for number, kind in enumerate(kinds):
        severities = []
        for severity in range(1, 6):
            bad = x.copy()
            bad[:, : (number + 1) * severity] = 0
            severities.append(bad)
        np.save(folder / f"{kind}.npy", np.concatenate(severities))
    np.save(folder / "labels.npy", np.tile(images.y.numpy(), 5))
    return folder


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def by_hand(net, folder, kind, severity, rows=None):
    x = np.load(folder / f"{kind}.npy")
    y = np.load(folder / "labels.npy")
    n = len(y) // 5
    part = slice((severity - 1) * n, severity * n)
    x, y = torch.from_numpy(x[part]).permute(0, 3, 1, 2) / 255, torch.from_numpy(y[part])
    with torch.no_grad():
        return (net(x).argmax(1) == y).float().mean().item()


def test_a_folder_as_published_becomes_a_table(run, tmp_path, capsys):
    from tests.support.evaluation_nets import trained

    folder = files(tmp_path / "Digits-C")
    assert main([str(run), "--corruptions", str(folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    report = json.loads((run / "corruptions.json").read_text())
    assert [*report["kinds"]] == ["gaussian_noise", "fog", "spatter"] and report["complete"]
    assert report["n"] == 40 and report["clean"] is None
    net = trained()
    for kind, entry in report["kinds"].items():
        for severity, cell in enumerate(entry["severities"], 1):
            assert cell["accuracy"] == pytest.approx(by_hand(net, folder, kind, severity))
            low, high = cell["interval"]
            assert low <= cell["accuracy"] <= high
    found = [
        cell["accuracy"] for kind in ("gaussian_noise", "fog") for cell in report["kinds"][kind]["severities"]
    ]
    assert report["mean"]["accuracy"] == pytest.approx(np.mean(found))
    assert report["mean"]["error"] == pytest.approx(1 - np.mean(found))
    assert "13 of the 15 common kinds are missing" in shown and "not in the mean: spatter" in shown
    assert f"common corruptions: {100 * np.mean(found):.2f} % right" in shown
    assert not (run / "evaluation.json").exists()


def test_the_same_command_goes_on_and_another_net_begins_anew(run, tmp_path, monkeypatch):
    folder, counted = files(tmp_path / "c"), []
    from lasat_ray.evaluation import corruptions

    cell = corruptions._cell
    monkeypatch.setattr(corruptions, "_cell", lambda *args: counted.append(1) or cell(*args))
    args = [str(run), "--corruptions", str(folder), "--out", str(tmp_path / "out")]
    assert main(args) == 0
    whole = json.loads((tmp_path / "out" / "corruptions.json").read_text())
    assert len(counted) == 15
    part = {**whole, "complete": False, "kinds": {"fog": whole["kinds"]["fog"]}}
    (tmp_path / "out" / "corruptions.json").write_text(json.dumps(part))
    assert main(args) == 0 and len(counted) == 25
    assert json.loads((tmp_path / "out" / "corruptions.json").read_text()) == whole
    assert main([*args, "--n-examples", "20"]) == 0 and len(counted) == 40


def test_mce_is_relative_to_another_net(run, tmp_path, capsys):
    folder = files(tmp_path / "c", kinds=("fog", "snow"))
    torch.manual_seed(3)
    weak = build_classifier("small_cnn", num_classes=10, image_shape=(1, 8, 8)).state_dict()
    base = make_run(tmp_path / "base", weak)
    assert main([str(base), "--corruptions", str(folder)]) == 0
    args = [str(run), "--corruptions", str(folder), "--corruption-baseline"]
    assert main([*args, str(base / "corruptions.json")]) == 0
    ours, theirs = (json.loads((r / "corruptions.json").read_text()) for r in (run, base))
    ratios = [
        sum(1 - c["accuracy"] for c in ours["kinds"][k]["severities"])
        / sum(1 - c["accuracy"] for c in theirs["kinds"][k]["severities"])
        for k in ("snow", "fog")
    ]
    assert ours["baseline"]["mce"] == pytest.approx(np.mean(ratios))
    capsys.readouterr()
    assert main([*args, str(tmp_path / "nothing.json")]) == 1
    assert main([*args, str(base / "corruptions.json"), "--n-examples", "20"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "is no finished corruptions.json" in first and "is about other images" in second


def test_the_report_shows_the_table(run, tmp_path):
    folder = files(tmp_path / "c")
    assert main([str(run), "--corruptions", str(folder), "--dataset", "digits"]) == 0
    report = json.loads((run / "corruptions.json").read_text())
    assert report["clean"]["n"] == len(digits())
    assert report_main([str(run), "--out", str(tmp_path / "report"), "--no-png", "--no-net"]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Common corruptions: run, 40 images, c" in page and "mean of 2 kinds" in page
    (table,) = (tmp_path / "report").glob("corruptions-*.csv")
    first = table.read_text().splitlines()[1].split(",")
    accuracy = report["kinds"]["gaussian_noise"]["severities"][0]["accuracy"]
    assert first[0] == "gaussian_noise" and first[2] == f"{100 * accuracy:.1f}"


def test_weights_of_a_named_net_need_no_training_images(run, tmp_path):
    from tests.support.evaluation_nets import trained

    folder = files(tmp_path / "c")
    torch.save(trained().backbone.state_dict(), tmp_path / "w.pt")
    args = ["small_cnn", "--weights", str(tmp_path / "w.pt")]
    assert main([*args, "--corruptions", str(folder)]) == 0
    assert main([str(run), "--corruptions", str(folder)]) == 0
    ours = json.loads((run / "corruptions.json").read_text())
    theirs = json.loads((tmp_path / "w-evaluation" / "corruptions.json").read_text())
    assert ours["kinds"] == theirs["kinds"]
    few = ["--attacks", "clean", "--sanity-examples", "4"]
    assert main([*args, *few, "--dataset", f"npz:{folder}/fog.npy@2"]) == 0
    found = json.loads((tmp_path / "w-evaluation" / "evaluation.json").read_text())
    assert found["attacks"]["clean"]["accuracy"] == ours["kinds"]["fog"]["severities"][1]["accuracy"]


def test_cifar_10_1_is_a_pair_of_files(run, tmp_path, capsys):
    images = digits(count=30)
    for version in ("v4", "v6"):
        np.save(tmp_path / f"cifar10.1_{version}_data.npy", images.x.permute(0, 2, 3, 1).numpy())
        np.save(tmp_path / f"cifar10.1_{version}_labels.npy", images.y.numpy())
    few = ["--attacks", "clean", "--sanity-examples", "4", "--dataset"]
    assert main([str(run), *few, f"npz:{tmp_path}"]) == 2
    assert "holds cifar10.1_v4_data.npy, cifar10.1_v6_data.npy; name one of them" in capsys.readouterr().err
    for place in (f"npz:{tmp_path}/cifar10.1_v6_data.npy", f"npz:{tmp_path}"):
        assert main([str(run), *few, place]) == 0
        assert json.loads((run / "evaluation.json").read_text())["n"] == 30
        (tmp_path / "cifar10.1_v4_data.npy").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--corruptions", "nowhere"], "--corruptions: 'nowhere' is no folder"),
        (["--corruptions", "empty"], "holds no .npy file of images"),
        (["--corruptions", "c", "--attacks", "clean"], "--attacks: clean has no effect with --corruptions"),
        (["--corruptions", "c", "--num-workers", "2"], "--num-workers: 2 has no effect with --corruptions"),
        (["--corruptions", "c", "--chunk-size", "0"], "--chunk-size: 0 is out of range"),
        (["--corruptions", "odd"], "11 images are no 5 equal severities"),
        (["--corruptions", "large"], "large"),
        (["--corruption-baseline", "x.json"], "--corruption-baseline: has no effect without --corruptions"),
        (["--corruptions", "make"], "make takes images of 32x32 or more and these are 8x8"),
    ],
)
def test_what_cannot_be_is_one_line(run, tmp_path, monkeypatch, capsys, args, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(make_corruptions, "version", lambda name: "1.1.5")
    files(tmp_path / "c")
    (tmp_path / "empty").mkdir()
    for name, shape in (("odd", (11, 8, 8, 1)), ("large", (10, 9, 9, 1))):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "fog.npy", np.zeros(shape, np.uint8))
        np.save(tmp_path / name / "labels.npy", np.arange(shape[0]) % 10)
    assert main([str(run), *args]) != 0
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


class TestMade:
    """Without the package at hand: what it is asked for, and what becomes of its answers."""

    @pytest.fixture
    def net_run(self, tmp_path):
        card = {"model": "mlp", "precision": "fp32", "num_classes": 2, "image_shape": [1, 32, 32]}
        torch.manual_seed(0)
        net = build_classifier("mlp", num_classes=2, image_shape=(1, 32, 32))
        x = np.random.default_rng(0).integers(0, 255, (6, 32, 32), np.uint8)
        np.savez(tmp_path / "test.npz", image=x, label=np.array([0, 1, 0, 1, 0, 1]))
        return make_run(tmp_path / "run", net.state_dict(), card)

    @pytest.fixture
    def library(self, monkeypatch):
        calls = []

        def corrupt(image, *, corruption_name, severity, seed=None):
            calls.append((corruption_name, severity, seed))
            made = np.repeat(image, 3, axis=2) if image.ndim == 3 else np.stack([image] * 3, -1)
            return np.clip(made + np.random.randint(0, 9 * severity, made.shape), 0, 255).astype(np.uint8)

        monkeypatch.setitem(sys.modules, "imagecorruptions", types.SimpleNamespace(corrupt=corrupt))
        monkeypatch.setattr(make_corruptions, "version", lambda name: "1.1.5")
        return calls

    def args(self, run, tmp_path, out):
        spelling = f"npz:{tmp_path / 'test.npz'}"
        return [str(run), "--corruptions", "make", "--dataset", spelling, "--out", str(tmp_path / out)]

    def test_fifteen_kinds_and_the_same_images_again(self, net_run, library, tmp_path, capsys):
        state = np.random.get_state()[1].tolist()
        assert main(self.args(net_run, tmp_path, "a")) == 0
        assert np.random.get_state()[1].tolist() == state
        assert main(self.args(net_run, tmp_path, "b")) == 0
        one, other = (json.loads((tmp_path / f / "corruptions.json").read_text()) for f in "ab")
        assert one == other and tuple(one["kinds"]) == COMMON and one["mean"]["missing"] == []
        assert {*one["mean"]["groups"]} == {"noise", "blur", "weather", "digital"}
        assert one["clean"]["n"] == one["n"] == 6
        half = len(library) // 2
        assert library[:half] == library[half:] and half == 15 * 5 * 6
        assert all((seed is not None) == (kind in make_corruptions.SEEDED) for kind, _, seed in library)
        assert "not to be compared with figures on CIFAR-10-C" in " ".join(capsys.readouterr().out.split())

    def test_without_the_package_one_line_says_how_to_get_it(self, net_run, tmp_path, monkeypatch, capsys):
        def absent(name):
            raise PackageNotFoundError(name)

        monkeypatch.setattr(make_corruptions, "version", absent)
        assert main(self.args(net_run, tmp_path, "a")) == 2
        error = capsys.readouterr().err
        assert "pip install '.[corruptions]' in a clone of lasat-ray" in error and error.count("\n") == 1

    def test_the_package_itself(self, net_run, tmp_path):
        pytest.importorskip("imagecorruptions")
        assert main(self.args(net_run, tmp_path, "a")) == 0
        assert main(self.args(net_run, tmp_path, "b")) == 0
        one, other = (json.loads((tmp_path / f / "corruptions.json").read_text()) for f in "ab")
        assert one == other


def test_the_mean_is_over_common_kinds_and_over_all_where_there_is_none():
    def entry(*accuracies):
        return {"severities": [{"accuracy": a} for a in accuracies]}

    kinds = {"fog": entry(1, 1, 1, 1, 0), "spatter": entry(0, 0, 0, 0, 0), "snow": entry(0, 0, 0, 0, 1)}
    assert means(kinds)["accuracy"] == pytest.approx(0.5)
    assert means(kinds)["groups"] == {"weather": pytest.approx(0.5)}
    assert means({"spatter": entry(1, 0, 0, 0, 0)})["accuracy"] == pytest.approx(0.2)
