"""``lasat_ray.predict``: the command's rows, for files, images of PIL and pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import lasat_ray
from lasat_ray import UserError
from lasat_ray.predict import main
from tests.api.conftest import Net

CHOICE = {"top": 2, "under_attack": True, "eps": "26/255", "num_steps": 3}


@pytest.fixture(scope="module")
def files(arrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for n in range(4):
        Image.fromarray(arrays[0][n]).save(folder / f"{n}.png")
    return [folder / f"{n}.png" for n in range(4)]


def test_the_command_tells_what_the_function_gives(run, files, capsys):
    words = [str(run.folder), *map(str, files), "--top", "2", "--under-attack", "--eps", "26/255"]
    assert main([*words, "--num-steps", "3", "--format", "json"]) == 0
    theirs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = lasat_ray.predict(run, files, **CHOICE)
    assert found.summary == theirs and len(found) == 4
    assert {"class_2", "confidence_under_attack", "withstands"} <= theirs[0].keys()
    assert main([*words, "--num-steps", "3"]) == 0
    table, page = "".join(capsys.readouterr().out.split()), found._repr_html_()
    for row, cells in zip(theirs, found.cells(), strict=True):
        assert f"{row['class']} {100 * row['confidence']:.1f} %" == cells[1]
        assert all(cell in page for cell in cells) and "".join(cells[1].split()) in table
    held = sum(row["withstands"] for row in theirs)
    assert repr(found) == f"PredictResult(4 images, {held} withstand PGD-3, L-inf eps 26/255)"


def test_files_images_of_pil_and_pixels_are_told_alike(run, files, arrays):
    by_file = lasat_ray.predict(run, files, **CHOICE)
    x = arrays[0][:4]
    same = {
        "a folder": files[0].parent,
        "PIL": [Image.open(file) for file in files],
        "an array": x,
        "floats, channels last": (x / 255)[..., None],
        "a tensor": torch.from_numpy(x)[:, None],
    }
    for name, images in same.items():
        found = lasat_ray.predict(run, images, **CHOICE)
        for ours, theirs in zip(found.summary, by_file.summary, strict=True):
            figures = {k: v for k, v in theirs.items() if k != "image"}
            assert {k: v for k, v in ours.items() if k != "image"} == pytest.approx(figures), name
    assert [row["image"] for row in lasat_ray.predict(run, x).summary] == ["0", "1", "2", "3"]
    assert lasat_ray.predict(run, []).summary == []


def test_images_of_pil_are_brought_to_the_nets_size_and_channels(run, arrays):
    small = Image.fromarray(arrays[0][0])
    large = small.resize((16, 16), Image.Resampling.NEAREST).convert("RGB")
    again = large.convert("L").resize((8, 8), Image.Resampling.BILINEAR)
    ours, theirs = (lasat_ray.predict(run, image).summary[0] for image in (large, np.asarray(again)[None]))
    assert ours["confidence"] == pytest.approx(theirs["confidence"])


def test_a_loaded_net_is_asked_as_its_run_is(run, arrays):
    x = arrays[0][:5]
    net = lasat_ray.load_model(run)
    assert lasat_ray.predict(net, x, **CHOICE).summary == lasat_ray.predict(run, x, **CHOICE).summary
    own = lasat_ray.predict(net, x, under_attack=True).under
    assert own is not None and own.eps == run.summary["eps"]


def test_batches_of_any_size_tell_the_same(run, arrays):
    whole, parts = (lasat_ray.predict(run, arrays[0][:7], batch_size=size) for size in (7, 3))
    for one, other in zip(whole.summary, parts.summary, strict=True):
        assert one == pytest.approx(other)


X = np.zeros((2, 8, 8), dtype=np.uint8)
LINES = [
    (("nowhere", X), {}, "nowhere"),
    ((None, "nowhere.png"), {}, "images: 'nowhere.png' is no file and no folder"),
    ((None, X[:, :4]), {}, "images: are (1, 4, 8) (C,H,W) and the net takes (1, 8, 8); resize them"),
    ((None, [X[0]]), {}, "images: item 0 is ndarray; give files or images of PIL"),
    ((None, 3), {}, "images: int is no image"),
    ((None, X + 3.0), {}, "images: pixels go from 3 to 3"),
    ((None, X), {"top": 0}, "top: 0 is out of range"),
    ((None, X), {"eps": 0.1}, "eps: 0.1 has no effect without under_attack"),
    ((None, X), {"eps": "x", "under_attack": True}, "eps: 'x' is not a budget"),
    ((None, X), {"eps": 8, "under_attack": True}, "eps: 8 is out of range"),
    ((None, X), {"which": "first"}, "which: 'first' is unknown; choose one of: best, last"),
    ((None, X), {"device": "gpu"}, "device: 'gpu' is unknown"),
    ((Net(), X), {}, "net: Net does not say what its classes and image sizes are"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "settings", "line"), LINES, ids=[line[:40] for _, _, line in LINES])
def test_what_cannot_work_is_one_line(given, settings, line, run):
    net, images = given
    with pytest.raises(UserError) as caught:
        lasat_ray.predict(run if net is None else net, images, **settings)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
