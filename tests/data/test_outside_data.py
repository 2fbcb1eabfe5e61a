"""Data sets from outside that break their contract: one line that names the argument, the kind of data set
and what to do, in training and in evaluations; never a traceback of ours."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

import lasat_ray
from lasat_ray import UserError
from lasat_ray.data.objects import one_part, training_parts

GOOD = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8)


def raising(error):
    def raise_it(*_):
        raise error

    return raise_it


def exits(*_):
    sys.exit(0)


class Faces(Dataset):
    """Twelve images of two classes; ``item`` spoils image 5."""

    def __init__(self, item=lambda image, label: (image, label)):
        self.item = item

    def __len__(self):
        return 12

    def __getitem__(self, n):
        return self.item(GOOD, n % 2) if n == 5 else (GOOD, n % 2)


class Odd(BaseException):
    pass


ITEMS = {
    "raises": (raising(KeyError("no such face")), "item 5 raised KeyError: 'no such face' ("),
    "exits": (exits, "item 5 raised SystemExit: 0 ("),
    "base": (raising(Odd("strange")), "item 5 raised Odd: strange ("),
    "stops": (raising(StopIteration()), "item 5 raised StopIteration"),
    "ends": (raising(IndexError("too short")), "item 5 raised IndexError: too short"),
    "none": (lambda x, y: None, "item 5 is None; a data set has to give (image, label)"),
    "image alone": (lambda x, y: x, "item 5 is torch.uint8 of (1, 8, 8); a data set has to give"),
    "three": (lambda x, y: (x, y, 5), "item 5 is a tuple of 3; a data set has to give (image, label)"),
    "dict": (lambda x, y: {"image": x, "label": y}, "item 5 is a dict; a data set has to give"),
    "no image": (lambda x, y: (None, y), "image 5 is None; give images of PIL"),
    "words": (lambda x, y: ("face.png", y), "image 5 is a str; give images of PIL"),
    "object": (lambda x, y: (object(), y), "image 5 is a object; give images of PIL"),
    "vector": (lambda x, y: (x[0, 0], y), "image 5 has shape [8]; give [C,H,W]"),
    "batch": (lambda x, y: (x[None], y), "image 5 has shape [1, 1, 8, 8]; give [C,H,W]"),
    "two channels": (lambda x, y: (x.expand(2, 8, 8), y), "image 5 has shape [2, 8, 8]; give"),
    "empty": (lambda x, y: (x[:, :0], y), "image 5 has shape [1, 0, 8]; give"),
    "size": (lambda x, y: (x[:, 1:], y), "image 5 is uint8 [1, 7, 8], the first uint8 [1, 8, 8]; bring"),
    "type": (lambda x, y: (x / 255, y), "image 5 is float32 [1, 8, 8], the first uint8 [1, 8, 8]; bring"),
    "integers": (lambda x, y: (x.long(), y), "image 5 is int64 [1, 8, 8]; give uint8, or floats in [0,1]"),
    "complex": (lambda x, y: (x.to(torch.complex64), y), "image 5 is complex64 [1, 8, 8]; give uint8"),
    "range": (lambda x, y: (x.float(), y), "image 5 has pixels from 0 to 63; give uint8 or floats in [0,1]"),
    "negative": (lambda x, y: (x / 255 - 0.5, y), "image 5 has pixels from -0.5 to -0.2529; give uint8"),
    "nan": (lambda x, y: (x * float("nan"), y), "image 5 has pixels from nan to nan; give uint8"),
    "no label": (lambda x, y: (x, None), "label of image 5 is None; give whole numbers from 0"),
    "name": (
        lambda x, y: (x, "cat"),
        "label of image 5 is a str; give whole numbers from 0, and their names",
    ),
    "fraction": (lambda x, y: (x, 1.7), "label of image 5 is a float; give whole numbers from 0"),
    "truth": (lambda x, y: (x, True), "label of image 5 is a bool; give whole numbers from 0"),
    "one-hot": (lambda x, y: (x, torch.eye(2)[y]), "label of image 5 is torch.float32 of (2,); give whole"),
}


def _use(train, data, net):
    if train:
        lasat_ray.train("digits", data=data, net=net, progress=False)
    else:
        lasat_ray.evaluate(net, data, attacks=("clean",))


@pytest.mark.parametrize("train", [True, False], ids=["train", "evaluate"])
@pytest.mark.parametrize("fault", ITEMS)
def test_an_item_that_is_none(fault, train, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    spoiled, told = ITEMS[fault]
    data, net = Faces(spoiled), nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with pytest.raises(UserError) as caught:
        _use(train, data, net)
    line = str(caught.value)
    assert line.startswith(f"data: 'Faces' {told}") and "; " in line and "\n" not in line
    if "raised" in told and "(" in told:
        assert "test_outside_data.py line " in line
    assert not list(tmp_path.iterdir()), "something was left behind"


LENGTHS = {
    "raises": (raising(OSError("no disk")), "asked for its length raised OSError: no disk"),
    "exits": (exits, "asked for its length raised SystemExit: 0"),
    "negative": (lambda self: -1, "asked for its length raised ValueError: __len__() should return >= 0"),
    "none": (lambda self: None, "asked for its length raised TypeError: 'NoneType' object cannot be"),
    "fraction": (lambda self: 2.5, "asked for its length raised TypeError: 'float' object cannot be"),
    "longer": (lambda self: 13, "item 12 raised IndexError: list index out of range"),
    "nothing": (lambda self: 0, "holds no images; check the data set"),
}


@pytest.mark.parametrize("fault", LENGTHS)
def test_a_length_that_is_none(fault):
    length, told = LENGTHS[fault]
    kind = type(
        "Faces",
        (Dataset,),
        {
            "__len__": length,
            "__getitem__": lambda self, n: [(GOOD, 0), (GOOD, 1)][n % 2] if n < 12 else [][n],
        },
    )
    with pytest.raises(UserError) as caught:
        training_parts(kind())
    assert str(caught.value).startswith(f"data: 'Faces' {told}")


LOADED = {
    "raises": (raising(KeyError("no such face")), "batch 1 raised KeyError: "),
    "exits": (exits, "batch 1 raised SystemExit: 0"),
    "image alone": (lambda x, y: x, "batch 1 raised "),
    "size": (lambda x, y: (x[:, 1:], y), "batch 1 raised RuntimeError: stack expects each tensor"),
    "words": (lambda x, y: ("face.png", y), "batch 1 raised TypeError: expected Tensor"),
    "no label": (lambda x, y: (x, None), "batch 1 raised "),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("fault", ["raises", "exits"])
def test_a_loader_s_data_set_and_workers(fault, workers):
    spoiled, told = LOADED[fault]
    if workers and fault == "exits":
        told = "batch "  # what its end looks like from here, and when, is the loader's affair
    with pytest.raises(UserError) as caught:
        one_part(DataLoader(Faces(spoiled), batch_size=4, num_workers=workers))
    line = str(caught.value)
    assert line.startswith(f"data: 'Faces' {told}") and "Traceback" not in line and "\n" not in line


@pytest.mark.parametrize("fault", [name for name in LOADED if name not in ("raises", "exits")])
def test_items_that_a_loader_cannot_collate(fault):
    spoiled, told = LOADED[fault]
    with pytest.raises(UserError) as caught:
        one_part(DataLoader(Faces(spoiled), batch_size=4))
    assert str(caught.value).startswith(f"data: 'Faces' {told}")


BATCHES = {
    "images of another size": (lambda b: (b[0][..., 1:], b[1]), "batch 2 has images uint8 [1, 1, 8, 7], the"),
    "another type": (
        lambda b: (b[0] / 255, b[1]),
        "batch 2 has images float32 [1, 1, 8, 8], the first uint8",
    ),
    "rows": (lambda b: (b[0][1:], b[1]), "batch 2 has images [3, 1, 8, 8] and labels [4]; give images"),
    "one image": (lambda b: (b[0][0], b[1]), "batch 2 has images [1, 8, 8] and labels [4]; give images"),
    "labels": (lambda b: (b[0], b[1][:, None]), "batch 2 has images [4, 1, 8, 8] and labels [4, 1]; give"),
    "words": (lambda b: (b[0], ["cat"] * 4), "batch 2 has images that are torch.uint8 of (4, 1, 8, 8) and"),
    "none": (lambda b: None, "batch 2 is None; a data set has to give (image, label)"),
    "dict": (lambda b: {"image": b[0]}, "batch 2 is a dict; a data set has to give (image, label)"),
}


class Collate:
    def __init__(self, spoiled):
        self.spoiled, self.calls = spoiled, 0

    def __call__(self, samples):
        self.calls += 1
        batch = torch.utils.data.default_collate(samples)
        return self.spoiled(batch) if self.calls == 3 else batch


@pytest.mark.parametrize("fault", BATCHES)
def test_a_batch_that_is_none(fault):
    spoiled, told = BATCHES[fault]
    with pytest.raises(UserError) as caught:
        one_part(DataLoader(Faces(), batch_size=4, collate_fn=Collate(spoiled)))
    assert str(caught.value).startswith(f"data: 'Faces' {told}")


class Rows:
    """As data sets of Hugging Face are, by their methods."""

    def __init__(self, row=lambda n: {"image": Image.new("L", (8, 8)), "label": n % 2}, columns=None):
        self.row, self.column_names = row, columns or ["image", "label"]
        self.features = {"image": object(), "label": object()}

    def __len__(self):
        return 4

    def __getitem__(self, n):
        return self.row(n)


ROWS = [
    (Rows(exits), "row 0 raised SystemExit: 0"),
    (Rows(raising(OSError("a truncated file"))), "row 0 raised OSError: a truncated file"),
    (Rows(lambda n: None), "row 0 is None; its rows have to hold 'image' and 'label'"),
    (Rows(lambda n: {"label": 0}), "row 0 is a dict; its rows have to hold 'image' and 'label'"),
    (Rows(lambda n: {"image": None, "label": 0}), "image 0 is None; give images of PIL"),
    (Rows(lambda n: {"image": {"bytes": b""}, "label": 0}), "image 0 is a dict; give images of PIL"),
    (Rows(lambda n: {"image": GOOD, "label": None}), "label of image 0 is None; give whole numbers"),
    (Rows(columns=["pixels", "label"]), "has columns pixels, label; rename those of images"),
]


@pytest.mark.parametrize(("data", "told"), ROWS, ids=[told[:20] for _, told in ROWS])
def test_rows_of_hugging_face(data, told):
    with pytest.raises(UserError) as caught:
        training_parts({"train": data})
    assert str(caught.value).startswith(f"data: 'Rows' {told}")


class Parts(dict):
    def __getitem__(self, name):
        raise RuntimeError("no network")


class Classes(Faces):
    @property
    def classes(self):
        sys.exit(3)


class Images(IterableDataset):
    def __iter__(self):
        return iter([(GOOD, 0), (GOOD, 1)])


OTHERS = [
    (Parts(train=1), "data: 'Parts' asked for its parts raised RuntimeError: no network"),
    (Classes(), "data: 'Classes' asked for its class names raised SystemExit: 3"),
    (Subset(Classes(), range(4)), "data: 'Subset' asked for its class names raised SystemExit: 3"),
    (
        Images(),
        "data: Images is no data; give a name such as 'digits', (x, y), a torch Dataset with a length",
    ),
    ((pair for pair in [(GOOD, 0)]), "data: generator is no data; give a name such as 'digits', (x, y)"),
    (iter([(GOOD, 0)]), "data: list_iterator is no data; give a name"),
    ([(GOOD, 0), (GOOD, 1), None], "data: 'list' item 2 is None; a data set has to give (image, label)"),
    ((GOOD[None].repeat(4, 1, 1, 1), [0, 1, 0, 10**9]), "data: image 3 has label 1000000000; labels are at"),
    ((np.full((4, 8, 8), "x"), [0, 1, 0, 1]), "data: images are ndarray (can't convert np.ndarray of type"),
]


@pytest.mark.parametrize(("data", "line"), OTHERS, ids=[line[:30] for _, line in OTHERS])
def test_other_kinds(data, line):
    with pytest.raises(UserError) as caught:
        training_parts(data)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("names", ["ab", b"ab", 3])
def test_class_names_are_a_list(names):
    with pytest.raises(UserError, match=r"^class_names: .* give a list with the name of every class"):
        training_parts(Faces(), class_names=names)


def test_what_belongs_to_the_machine_and_ctrl_c_pass_as_they_are():
    for error in (KeyboardInterrupt(), MemoryError(), torch.OutOfMemoryError("full")):
        with pytest.raises(type(error)):
            training_parts(Faces(raising(error)))


def test_the_test_part_is_named_as_such():
    with pytest.raises(UserError, match=r"^test: 'Faces' item 5 is None"):
        training_parts(Faces(), Faces(lambda x, y: None))


class Bounded(Faces):
    def __init__(self, kind):
        self.kind = kind

    def __getitem__(self, n):
        return GOOD, self.kind(n % 2)


@pytest.mark.parametrize(
    "kind", [int, np.int64, torch.tensor, lambda y: np.array([y]), lambda y: torch.tensor([y])]
)
def test_whole_numbers_of_any_type_are_labels(kind):
    (given,) = training_parts(Bounded(kind))
    assert given.images.y.tolist() == [0, 1] * 6 and torch.equal(given.images.x[3], GOOD)
