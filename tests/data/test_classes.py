"""Which classes are the same: by name, by number without names, and the first difference otherwise."""

import json

import numpy as np
import pytest
import torch

from lasat_ray.api.commands.leaderboard import check_classes
from lasat_ray.data import load_extra
from lasat_ray.data.classes import Classes, check_same, classes_of_names, match, relabelled
from lasat_ray.data.subsets import coverage, even_order, subset
from lasat_ray.errors import UserError

ABC = Classes(("a", "b", "c"))


def mapped(theirs, ours):
    found = match(theirs, ours, "them", "us")
    return None if found is None else found.tolist()


def test_names_decide_and_numbers_stand_in_for_them():
    assert mapped(ABC, ABC) is None
    assert mapped(Classes(("c", "a", "b")), ABC) == [2, 0, 1]
    assert mapped(Classes(("c", "a")), ABC) == [2, 0]
    assert mapped(Classes(("9", "0")), classes_of_names([str(n) for n in range(10)])) == [9, 0]
    assert mapped(Classes.numbered(3), ABC) is None and mapped(ABC, Classes.numbered(3)) is None


@pytest.mark.parametrize(
    ("theirs", "ours", "told"),
    [
        (Classes(("a", "d")), ABC, "them: class 1 is 'd', which is no class of us (its class 1 is 'b')"),
        (
            Classes(("a", "b", "c", "d")),
            ABC,
            "class 3 is 'd', which is no class of us (its class 3 is nothing)",
        ),
        (Classes.numbered(2), ABC, "has 2 classes and us has 3, class 2 is the first to differ"),
        (Classes.numbered(4), Classes.numbered(3), "has 4 classes and us has 3, class 3 is the first"),
        (Classes(("a", "a")), ABC, "them: class 1 is 'a' once more"),
        (Classes(("b", "a")), Classes(("a", "b", "a")), "us: class 2 is 'a' once more"),
    ],
)
def test_the_first_class_that_differs_is_named(theirs, ours, told):
    with pytest.raises(UserError) as caught:
        match(theirs, ours, "them", "us")
    assert told in str(caught.value)


def test_nets_have_to_number_the_classes_alike():
    for theirs in (ABC, Classes.numbered(3)):
        check_same(theirs, ABC, "net", "set", remedy="x")
    digits = classes_of_names([str(n) for n in range(3)])
    for theirs, ours, told in (
        (Classes(("a", "c", "b")), ABC, "net: class 1 is 'c' and that of set is 'b'"),
        (Classes(("2", "1", "0")), digits, "net: class 0 is '2' and that of set is '0'"),
        (Classes.numbered(2), ABC, "has 2 classes and set has 3"),
    ):
        with pytest.raises(UserError, match=told):
            check_same(theirs, ours, "net", "set", remedy="x")


def test_missing_labels_stay_missing():
    assert relabelled(np.array([0, -1, 1]), np.array([5, 3])).tolist() == [5, -1, 3]


def test_extra_images_are_renumbered_by_name(tmp_path):
    image = np.zeros((2, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "x.npz", image=image, label=[0, 1], class_names=np.array(["c", "a"]))
    assert load_extra(f"npz:{tmp_path / 'x.npz'}", (3, 4, 4), ABC).y.tolist() == [2, 0]


def test_every_beginning_of_a_subset_is_even_and_keeps_its_place():
    y = torch.tensor([0] * 50 + [1] * 30 + [2] * 3)
    order = even_order(y)
    assert sorted(order.tolist()) == list(range(83)) and order.tolist() != list(range(83))
    for count in (1, 3, 9, 40):
        counts = torch.bincount(y[order[:count]], minlength=3)
        assert (counts[:2].max() - counts[:2].min() <= 1 and counts[2] == min(3, counts[0])) or count < 3
    assert torch.equal(subset(y, 9), order[:9]) and torch.equal(subset(y, 83), torch.arange(83))
    taken = y[order[:9]]
    assert torch.equal(subset(taken, 4), torch.arange(4))  # a subset of a subset is the smaller subset
    told = coverage(y[order[:10]], ("x", "y", "z", "w"), 83)
    assert told["told"] == "10 of 83 images, 3 to 4 of each of 3 classes" and told["absent"] == ["w"]


def test_a_leaderboard_refuses_two_sets_of_one_name(tmp_path):
    files = []
    for n, names in enumerate((["a", "b"], ["b", "a"], ["a", "c"])):
        files.append(tmp_path / f"{n}.json")
        files[-1].write_text(json.dumps({"dataset": "pets", "class_names": names}))
    check_classes(files[:2])
    with pytest.raises(UserError, match=r"2.json: class 'c' of pets is no class of .*0.json"):
        check_classes(files)
