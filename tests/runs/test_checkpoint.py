"""Checkpoints come back as they were, or are refused in one line; a failed write changes nothing."""

import json
import math
import os
import pickle
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lasat_ray.errors import UserError
from lasat_ray.runs import checkpoint
from lasat_ray.runs.checkpoint import load_checkpoint, raw_bytes, save_checkpoint, write_atomically


def same(a, b):
    """Equal in structure, type, dtype and every bit."""
    if isinstance(a, torch.Tensor):
        raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*raw)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def everything():
    shared = torch.arange(6.0)
    return {
        "round": 17,
        "best": -math.inf,
        "worst": math.inf,
        "none": None,
        "nan": math.nan,
        "flag": True,
        "text": 'quotes " and \n lines, é',
        "tuple": (1, (2.5, "x"), [None, (), {}]),
        "optimizer": {
            "state": {0: {"momentum": torch.randn(3)}, 12: {}},
            "param_groups": [{"betas": (0.9, 0.99)}],
        },
        "bf16": torch.randn(4, 3).bfloat16(),
        "half": torch.randn(2).half(),
        "f64": torch.randn(2, 2, dtype=torch.float64),
        "i64": torch.tensor([2**62, -1]),
        "bool": torch.tensor([True, False]),
        "uint8": torch.arange(5, dtype=torch.uint8),
        "scalar": torch.tensor(3.25),
        "empty": torch.zeros(0, 3),
        "transposed": torch.randn(3, 4).T,
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "shared": [shared, shared, shared[2:]],
        "with/slash": {"a": torch.ones(1)},
        "with": {"slash": {"a": torch.zeros(1)}},
        "grad": torch.ones(2, requires_grad=True),
        "specials": torch.tensor([math.nan, math.inf, -0.0]),
    }


def test_everything_comes_back(tmp_path):
    tree = everything()
    save_checkpoint(tmp_path / "a.safetensors", tree)
    read = load_checkpoint(tmp_path / "a.safetensors")
    tree["grad"] = tree["grad"].detach()
    for key in tree:
        assert same(read[key], tree[key]), key
    assert list(read) == list(tree)
    assert not read["grad"].requires_grad


LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
KEYS = st.text(max_size=4) | st.integers(-3, 3)
TREES = st.recursive(
    LEAVES,
    lambda node: (
        st.lists(node, max_size=3)
        | st.lists(node, max_size=3).map(tuple)
        | st.dictionaries(KEYS, node, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(tree=st.dictionaries(KEYS, TREES, max_size=4))
def test_any_tree_comes_back(tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("tree") / "a.safetensors"
    save_checkpoint(path, tree)
    assert same(load_checkpoint(path), tree)


def test_keys_that_spell_the_same_path_stay_apart(tmp_path):
    tree = {
        "a/b": torch.zeros(1),
        "a": {"b": torch.ones(1)},
        1: torch.full((1,), 2.0),
        "1": torch.full((1,), 3.0),
    }
    save_checkpoint(tmp_path / "a", tree)
    assert same(load_checkpoint(tmp_path / "a"), tree)


def test_what_cannot_be_kept_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"checkpoint: /a/0 is a set; keep tensors and numbers"):
        save_checkpoint(tmp_path / "a", {"a": [{1, 2}]})
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a small checkpoint with tensors of several kinds."""
    path = tmp_path_factory.mktemp("whole") / "a.safetensors"
    tree = {
        "net": {"w": torch.randn(2, 3), "n": torch.tensor(4), "h": torch.randn(2).bfloat16()},
        "round": 3,
        "names": ("a", "b"),
    }
    save_checkpoint(path, tree)
    return path.read_bytes()


def refusal(path):
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_a_file_cut_short_anywhere_is_refused(whole, tmp_path):
    path = tmp_path / "a.safetensors"
    for length in [*range(0, 40), *range(40, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refusal(path)
    path.write_bytes(whole + b"\0")
    refusal(path)


def test_a_file_with_any_byte_changed_is_refused(whole, tmp_path):
    path = tmp_path / "a.safetensors"
    for place in range(len(whole)):
        for change in (1 << place % 8, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= change
            path.write_bytes(damaged)
            refusal(path)


def header_of(whole):
    (length,) = struct.unpack("<Q", whole[:8])
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def with_header(header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("name", "change"),
    [("/net/w", {"dtype": "I32"}), ("/net/w", {"dtype": "U32"}), ("/net/w", {"shape": [3, 2]})],
)
def test_a_tensor_read_as_another_kind_is_refused(whole, tmp_path, name, change):
    header, data = header_of(whole)
    header[name] |= change
    (tmp_path / "a").write_bytes(with_header(header, data))
    refusal(tmp_path / "a")


@pytest.mark.parametrize("change", [{"tree": None}, {"sha256": None}, {"format": None}, {"format": "x\ny"}])
def test_metadata_of_another_kind_are_refused(whole, tmp_path, change):
    header, data = header_of(whole)
    metadata = {**header["__metadata__"], **change}
    header["__metadata__"] = {key: value for key, value in metadata.items() if value is not None}
    (tmp_path / "a").write_bytes(with_header(header, data))
    refusal(tmp_path / "a")


def test_other_peoples_files_are_refused(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "plain.safetensors")
    assert "this program reads 'lasat-ray checkpoint 1'" in refusal(tmp_path / "plain.safetensors")
    (tmp_path / "empty").touch()
    refusal(tmp_path / "empty")
    assert "no such checkpoint" in refusal(tmp_path / "missing")
    (tmp_path / "folder").mkdir()
    refusal(tmp_path / "folder")
    torch.save({"w": torch.ones(2)}, tmp_path / "torch.pt")
    refusal(tmp_path / "torch.pt")


def touch(path):
    open(path, "w").close()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return touch, (self.path,)


@pytest.mark.parametrize("saved", ["pickle", "torch"])
def test_a_planted_pickle_is_refused_and_not_run(tmp_path, saved):
    fired, path = tmp_path / "fired", tmp_path / "a.safetensors"
    if saved == "pickle":
        path.write_bytes(pickle.dumps({"net": Bomb(str(fired))}))
    else:
        torch.save({"net": Bomb(str(fired))}, path)
    refusal(path)
    assert not fired.exists()
    pickle.loads(pickle.dumps(Bomb(str(fired))))
    assert fired.exists(), "the bomb itself is a dud"


@pytest.mark.parametrize("broken", ["replace", "fsync"])
@pytest.mark.parametrize("there", [True, False])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, broken, there):
    path = tmp_path / "a.safetensors"
    if there:
        save_checkpoint(path, {"round": 1})

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, broken, fail)
    with pytest.raises(
        UserError, match=r"a\.safetensors: cannot be written \(No space left on device\); free"
    ):
        save_checkpoint(path, {"round": 2})
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == (["a.safetensors"] if there else [])
    assert not there or load_checkpoint(path) == {"round": 1}


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(tmp_path / "no" / "a", b"x")


def test_writing_puts_everything_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            checkpoint.os, name, lambda *args, name=name, real=real: (order.append(name), real(*args))[1]
        )
    write_atomically(tmp_path / "a", b"content")
    assert order == ["fsync", "replace", "fsync"], "the last one is the folder's, for the name"
    assert (tmp_path / "a").read_bytes() == b"content"


def test_bytes_are_those_of_the_values_whatever_the_strides() -> None:
    expanded = torch.tensor(3.0).expand(1)
    assert expanded.is_contiguous() and expanded.stride() == (0,)
    assert raw_bytes(expanded) == raw_bytes(torch.tensor([3.0]))
    table = torch.arange(6.0).reshape(2, 3)
    assert raw_bytes(table.T) == raw_bytes(table.T.contiguous()) != raw_bytes(table)
    assert raw_bytes(torch.empty(0)) == b""
