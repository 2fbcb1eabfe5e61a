"""Users' folders and files, each awkward in one way, through loading, training, evaluating and explaining."""

import json
import sys

import numpy as np
import pytest
import torch

from lasat_ray.data import load_dataset
from lasat_ray.data.images import ReadOptions
from lasat_ray.errors import UserError
from lasat_ray.evaluate import main as evaluate_main
from lasat_ray.explain import main as explain_main
from lasat_ray.report import main as report_main
from lasat_ray.train import main as train_main

from ..support.awkward_sets import NAMES, SETS, TEST, TRAIN, Reads, arrays, make, parquet, table

QUICK = ["--model", "mlp", "--strategy", "fixed", "--attack.num-steps", "1", "--batch-size", "8"]
QUICK += ["--evaluation.test-num-steps", "1", "--evaluation.val-num-steps", "1", "--attack.eps", "8/255"]


def load(spelling, **limits):
    limits = {"max_train": None, "max_test": None, "seed": 0, **limits}
    return load_dataset(spelling, root="nowhere", **limits)


def train(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["train", *args])
    return train_main()


@pytest.mark.parametrize("name", SETS)
def test_what_loading_an_awkward_set_gives(name, tmp_path):
    wanted = SETS[name][2]
    spelling = make(name, tmp_path)

    def loaded():
        dataset = load(spelling)
        return dataset, dataset.inspect_test()

    if not isinstance(wanted, Reads):
        with pytest.raises(UserError) as caught:
            loaded()
        assert wanted.told in str(caught.value) and "\n" not in str(caught.value)
        return
    dataset, facts = loaded()
    assert (len(dataset.train), facts.coverage["used"]) == (wanted.train, wanted.test)
    assert wanted.told in " ".join([*dataset.notes, *facts.notes])
    assert bool(wanted.told) == bool(dataset.notes or facts.notes)
    for images in (dataset.train.take(torch.arange(wanted.train)), dataset.load_test()):
        for label, looks in ((0, "bright"), (1, "dark")):
            assert dataset.class_names[label] == (looks if dataset.named else str(label))
            seen = images.x[images.y == label].float().mean((1, 2, 3))
            assert ((seen > 128) == (looks == "bright")).all()


def test_transparent_pixels_show_what_is_asked_for(tmp_path):
    """Glyphs in the alpha channel of black pixels: on black there is nothing to see, as was read before."""
    spelling = make("transparent", tmp_path)
    on_black = load(spelling, options=ReadOptions(background="black")).train.x
    assert int(on_black.max()) == 0 and int(load(spelling).train.x.max()) > 200


def test_columns_with_other_names_are_read_by_name(tmp_path):
    spelling = make("other columns", tmp_path)
    dataset = load(spelling, options=ReadOptions(image_column="photo", label_column="kind"))
    assert len(dataset.train) == 2 * TRAIN and dataset.class_names == ("bright", "dark")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on the plain folder, and where it lies."""
    root = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        args = ["--dataset", make("plain", root), "--epochs", "4", "--out", str(root / "run")]
        assert train(patch, *QUICK, "--data.max-test", "6", *args) == 0
    return root / "run"


def test_caps_and_the_images_of_the_result_are_told(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["test_images"]["told"] == "6 of 12 images, 3 of each of 2 classes"
    assert summary["test_images"]["largest_class"] == 0.5 and summary["clean_acc"] > 0.9
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (told,) = [record["told"] for record in records if record["kind"] == "data"]
    assert told.startswith("6 of 12 test images of imagefolder:") and "--data.max-test" in told


def evaluation(run, out, *args):
    assert evaluate_main([str(run), "--attacks", "clean", "--out", str(out), *args]) == 0
    return json.loads((out / "evaluation.json").read_text())


def test_training_and_evaluating_agree_on_the_images_of_a_cap(run, tmp_path):
    report = evaluation(run, tmp_path / "e", "--n-examples", "6")
    summary = json.loads((run / "summary.json").read_text())
    assert report["images"] == summary["test_images"]
    assert report["attacks"]["clean"]["accuracy"] == summary["clean_acc"]
    flags = np.load(tmp_path / "e" / "flags.npz")
    assert sorted(flags["label"].tolist()) == [0, 0, 0, 1, 1, 1]


def test_labels_are_matched_by_name_with_the_net_that_is_evaluated(run, tmp_path):
    backwards = table(TRAIN, TEST, NAMES[::-1], lambda y: 1 - y)
    parquet(tmp_path / "backwards", test__0=backwards)  # no training part: the net's card is enough
    for spelling in (f"parquet:{tmp_path / 'backwards'}", f"stream:{tmp_path / 'backwards'}"):
        report = evaluation(run, tmp_path / spelling[:3], "--dataset", spelling)
        assert report["attacks"]["clean"]["accuracy"] == 1.0 and report["n"] == 2 * TEST


def test_a_set_of_fewer_classes_is_evaluated_where_names_say_so(run, tmp_path, capsys):
    dark = tmp_path / "dark" / "test" / "dark"
    dark.mkdir(parents=True)
    for file in (run.parent / "plain" / "test" / "dark").iterdir():
        (dark / file.name).write_bytes(file.read_bytes())
    report = evaluation(run, tmp_path / "e", "--dataset", f"imagefolder:{tmp_path / 'dark'}")
    assert report["attacks"]["clean"]["accuracy"] == 1.0 and report["images"]["absent"] == ["bright"]
    image, label = arrays(TRAIN, TEST)
    for names, status in ((None, 1), (["dark"], 0), (["dim"], 1)):
        named = {} if names is None else {"class_names": np.array(names)}
        np.savez(tmp_path / "one.npz", image=image[label == 1], label=np.zeros(TEST, int), **named)
        args = [str(run), "--attacks", "clean", "--dataset", f"npz:{tmp_path / 'one.npz'}", "--out"]
        assert evaluate_main([*args, str(tmp_path / f"out{names}")]) == status
    told = capsys.readouterr().err.splitlines()
    assert "has 1 classes and the net has 2, class 1 is the first to differ" in told[0]
    assert "class 0 is 'dim', which is no class of the net" in told[1]


def test_published_npy_files_are_evaluated_alone(run, tmp_path):
    image, label = arrays(TRAIN, TEST)
    image = np.concatenate(
        [image[..., None]] * 4 + [255 - image[..., None]]
    )  # severity 5 turns bright to dark
    for name in ("fog", "frost"):
        np.save(tmp_path / f"{name}.npy", image)
    np.save(tmp_path / "labels.npy", np.tile(label, 5))
    for place, count, accuracy in (
        ("", 10 * len(label), 0.8),
        ("/fog.npy", 5 * len(label), 0.8),
        ("/fog.npy@4", len(label), 1.0),
        ("/fog.npy@5", len(label), 0.0),
    ):
        report = evaluation(run, tmp_path / f"out{place[-1:]}{count}", "--dataset", f"npz:{tmp_path}{place}")
        assert (report["n"], report["attacks"]["clean"]["accuracy"]) == (count, pytest.approx(accuracy))


def test_explain_and_report_read_what_training_reads(run, tmp_path, capsys):
    SETS["transparent"][0](tmp_path / "sets")  # bright glyphs: what is opaque in them is black
    file = next((tmp_path / "sets" / "train" / "dark").iterdir())
    assert explain_main([str(run), str(file), "--num-steps", "2", "--restarts", "1"]) == 0
    assert "dark" in capsys.readouterr().out
    assert report_main([str(run), "--out", str(tmp_path / "report"), "--no-png"]) in (0, 2)


def test_a_resumed_run_asks_for_the_same_images(tmp_path, monkeypatch, capsys):
    from lasat_ray.cluster.local import train_here
    from lasat_ray.runs.checkpoint import load_checkpoint, save_checkpoint
    from lasat_ray.runs.folder import RunFolder

    spelling = make("arrays", tmp_path)
    file = tmp_path / "arrays" / "set.npz"
    out = tmp_path / "run"
    args = ["--dataset", spelling, "--epochs", "2", "--out", str(out)]
    assert train(monkeypatch, *QUICK, *args, "--dry-run") == 0
    from lasat_ray.cli.run_options import parse_train

    config, _ = parse_train([*QUICK, *args])
    folder = RunFolder.create(out, config)
    train_here(config, folder, stop_epoch=1)
    known = dict(np.load(file))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["data"]["train_count"] == 24 and manifest["data"]["class_names"] == ["0", "1"]
    changes = {
        "pixels or labels": {"image": 255 - known["image"]},
        "were 24 and are 20": {"image": known["image"][:20], "label": known["label"][:20]},
        "test images or their labels": {"test_image": 255 - known["test_image"]},
        "class names": {"label": np.where(known["label"] == 1, 2, 0)},
    }
    for told, change in changes.items():
        np.savez(file, **{**known, **change})
        capsys.readouterr()
        assert train(monkeypatch, "--resume", str(out)) == 1
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
    assert train(monkeypatch, "--resume", str(out), "--accept-changed-data") == 1  # other classes: never
    np.savez(file, **{**known, **changes["pixels or labels"]})
    last = out / "checkpoints" / "last.safetensors"
    whole = load_checkpoint(last)
    save_checkpoint(last, {name: value for name, value in whole.items() if name != "data"})
    older = last.read_bytes()  # of a version that kept no fingerprint: resumes as it did
    save_checkpoint(last, whole)
    assert train(monkeypatch, "--resume", str(out), "--accept-changed-data") == 0
    assert "accepted" in (out / "metrics.jsonl").read_text()
    manifest = json.loads((out / "manifest.json").read_text())
    assert len(manifest["data_changes"]) == 1
    (out / "summary.json").unlink()
    last.write_bytes(older)
    (out / "checkpoints" / "previous.safetensors").unlink(missing_ok=True)
    assert train(monkeypatch, "--resume", str(out)) == 0


def test_an_own_net_under_model_is_filled_with_its_own_keys(tmp_path):
    from lasat_ray.runs.foreign import fitting_keys

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(2, 2)

    weights = Own().state_dict()
    for prefix in ("", "module.", "module.model.", "backbone."):
        given = {prefix + key: value for key, value in weights.items()}
        assert fitting_keys(Own(), given).keys() == weights.keys()
    inner = {key.removeprefix("model."): value for key, value in weights.items()}
    assert fitting_keys(Own().model, weights).keys() == inner.keys()


def test_ranks_without_images_take_part(tmp_path):
    """More workers than validation images: the sum over all ranks is that of one process."""
    from dataclasses import dataclass

    from lasat_ray.config import EvalConfig
    from lasat_ray.data import Images
    from lasat_ray.evaluation import accuracy
    from lasat_ray.process_group import ProcessGroup

    @dataclass(frozen=True, slots=True)
    class Alone(ProcessGroup):
        def sum(self, tensor):
            return tensor

    images = Images(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)).eval()
    shared = {"seed": 0, "device": torch.device("cpu"), "dtype": torch.float32}
    shares = [accuracy(net, images, 0, EvalConfig(), group=Alone(rank, 4), **shared) for rank in range(4)]
    assert shares[2:] == [0.0, 0.0] and sum(shares) == 0.5


def test_the_recipe_for_own_images_uses_all_of_them_and_tells_the_time(tmp_path, monkeypatch, capsys):
    spelling = make("plain", tmp_path)
    args = [
        "--recipe",
        "images",
        "--dataset",
        spelling,
        "--epochs",
        "4",
        "--batch-size",
        "8",
        "--model",
        "mlp",
    ]
    assert train(monkeypatch, *args, "--evaluation.test-num-steps", "1", "--out", str(tmp_path / "run")) == 0
    told = capsys.readouterr().out
    assert (
        "Recipe images for 24 training images (1, 8, 8) (C,H,W), 2 classes: --model mlp --batch-size 8"
        in told
    )
    assert "; about " in told and "largest of 2 classes is right on 50.0 %" in told
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (
        summary["test_images"]["of"] == summary["test_images"]["used"] == 12 and summary["clean_acc"] == 1.0
    )
