"""Arrays saved by numpy, as data sets and as extra images, and every way to be wrong."""

import io
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lasat_ray.data import Batches, load_extra
from lasat_ray.errors import UsageError
from lasat_ray.process_group import ProcessGroup

from .conftest import error_of, load, make_images, only_user_errors

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 5, 6, 3), dtype=np.uint8)
LABEL = np.arange(12) % 3


def save(file, **arrays):
    np.savez(file, **{"image": IMAGE, "label": LABEL, **arrays})
    return file


def test_one_file_with_test_images(tmp_path):
    file = save(tmp_path / "set.npz", test_image=IMAGE[:4], test_label=LABEL[:4].astype(np.uint8))
    dataset = load(f"npz:{file}", max_test=3)
    assert dataset.class_names == ("0", "1", "2") and dataset.image_shape == (3, 5, 6)
    assert torch.equal(dataset.train.x.permute(0, 2, 3, 1), torch.from_numpy(IMAGE))
    assert dataset.train.y.tolist() == LABEL.tolist()
    assert torch.equal(dataset.load_test().x, dataset.train.x[:3])


def test_a_folder_of_two_compressed_grey_files(tmp_path):
    np.savez_compressed(tmp_path / "train.npz", image=IMAGE[..., 0], label=LABEL)
    np.savez_compressed(tmp_path / "test.npz", image=IMAGE[:2, ..., :1], label=LABEL[:2])
    dataset = load(f"npz:{tmp_path}", max_train=5, seed=1)
    assert dataset.image_shape == (1, 5, 6) and len(dataset.train) == 5
    assert torch.equal(dataset.load_test().x[:, 0], torch.from_numpy(IMAGE[:2, ..., 0].copy()))


def test_the_classes_are_those_of_all_rows_not_of_the_chosen(tmp_path):
    file = save(tmp_path / "set.npz", label=np.r_[np.zeros(11, dtype=int), 7])
    assert all(load(f"npz:{file}", max_train=1, seed=seed).num_classes == 8 for seed in range(5))


def test_columns_stored_in_fortran_order_and_big_endian_labels(tmp_path):
    file = save(tmp_path / "set.npz", image=np.asfortranarray(IMAGE), label=LABEL.astype(">i4"))
    train = load(f"npz:{file}").train
    assert torch.equal(train.x.permute(0, 2, 3, 1), torch.from_numpy(IMAGE)) and train.y.tolist() == list(
        LABEL
    )


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"label": LABEL - 1}, " label row 0: label -1 is outside 0..65535; correct or remove that row"),
        (
            {"label": LABEL + 2**20},
            " label row 0: label 1048576 is outside 0..65535; correct or remove that row",
        ),
        ({"label": LABEL / 1}, " label: float64 of shape (12,); want integers [N]"),
        ({"label": LABEL[:, None]}, " label: int64 of shape (12, 1); want integers [N]"),
        ({"label": LABEL[:5]}, ": 12 image rows but 5 label rows; make them equally many"),
        ({"label": LABEL.astype(object)}, " label: holds Python objects; save it as plain numbers"),
        (
            {"image": IMAGE / 255},
            " image: float64 of shape (12, 5, 6, 3); want uint8 [N,H,W], [N,H,W,1] or [N,H,W,3]",
        ),
        (
            {"image": IMAGE.transpose(0, 3, 1, 2)},
            " image: uint8 of shape (12, 3, 5, 6); want uint8 [N,H,W], [N,H,W,1] or [N,H,W,3]",
        ),
        (
            {"image": IMAGE[:, :0]},
            " image: uint8 of shape (12, 0, 6, 3); want uint8 [N,H,W], [N,H,W,1] or [N,H,W,3]",
        ),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, text):
    file = save(tmp_path / "set.npz", **arrays)
    assert error_of(lambda: load(f"npz:{file}")) == f"{file}{text}"


def test_missing_and_damaged_files_are_named(tmp_path):
    file = save(tmp_path / "train.npz")
    assert error_of(lambda: load("npz:/no/such.npz")) == "/no/such.npz: no such file; check the path"
    assert error_of(lambda: load(f"npz:{tmp_path}")) == (
        f"{tmp_path}/test.npz: no such file; add the test images there"
    )
    assert error_of(load(f"npz:{file}").load_test) == (
        f"{file}: has no array 'test_label' (found image, label); add it, or name it with --data.label-column"
    )
    whole = file.read_bytes()
    for damaged in (b"", whole[:200], whole[:-30], b"PK" + whole[2:90]):
        file.write_bytes(damaged)
        assert error_of(lambda: load(f"npz:{file}")).startswith(f"{file}: cannot be read (")
    save(file, image=IMAGE[:0], label=LABEL[:0])
    assert error_of(lambda: load(f"npz:{file}")) == f"npz:{file}: holds no training images; check the path"


def test_test_labels_beyond_the_training_labels_are_named(tmp_path):
    file = save(tmp_path / "set.npz", test_image=IMAGE[:2], test_label=np.array([0, 3]))
    assert error_of(load(f"npz:{file}").load_test) == (
        f"{file} test_label row 1: label 3 is outside 0..2; correct or remove that row"
    )


def forged(file, shape):
    """An npz whose image member declares ``shape`` and holds nothing."""
    with zipfile.ZipFile(file, "w") as members:
        for name, header_shape in (("label", (0,)), ("image", shape)):
            out = io.BytesIO()
            descr = {"descr": "|u1", "fortran_order": False, "shape": header_shape}
            np.lib.format.write_array_header_1_0(out, descr)
            members.writestr(f"{name}.npy", out.getvalue())
    return file


@pytest.mark.parametrize("shape", [(10**9, 32, 32, 3), (2**40, 2**40, 3), (2**64, 1, 1)])
def test_a_declared_size_over_the_free_memory_is_refused_before_reading(tmp_path, shape):
    text = error_of(lambda: load(f"npz:{forged(tmp_path / 'set.npz', shape)}"))
    assert "set.npz image: needs " in text and text.endswith(
        "GiB of memory is free; use fewer or smaller images"
    )


def test_extra_images_fit_the_main_set(tmp_path):
    file = save(tmp_path / "extra.npz")
    extra = load_extra(f"npz:{file}", (3, 5, 6), 3)
    assert len(extra) == 12 and extra.x.shape[1:] == (3, 5, 6)
    assert error_of(lambda: load_extra(f"npz:{file}", (3, 5, 6), 2)) == (
        f"{file} label row 2: label 2 is outside 0..1; correct or remove that row"
    )
    assert error_of(lambda: load_extra(f"npz:{file}", (1, 5, 6), 3)) == (
        f"{file}: holds 12 images of (3, 5, 6) (C,H,W); want at least one of (1, 5, 6), as in the main set"
    )
    for spelling in ("extra.npz", "npz:", "parquet:here"):
        assert error_of(lambda spelling=spelling: load_extra(spelling, (3, 5, 6), 3), UsageError) == (
            f"--data.extra: '{spelling}' is not npz:PATH or stream:URL; write for example npz:extra.npz"
        )


def test_a_batch_holds_its_share_of_synthetic_images_as_they_are_published(tmp_path):
    """``image`` uint8 [N,32,32,3] and ``label`` int64 [N], as in the files of the diffusion papers."""
    drawn = np.random.default_rng(1)
    arrays = {"image": drawn.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8), "label": np.arange(50) % 10}
    np.savez_compressed(tmp_path / "1m.npz", **arrays)
    extra = load_extra(f"npz:{tmp_path / '1m.npz'}", (3, 32, 32), 10)
    real = make_images(40, (3, 32, 32))
    batches = Batches(
        real,
        batch_size=20,
        seed=0,
        group=ProcessGroup(),
        device="cpu",
        dtype=torch.float64,
        augment=None,
        extra=extra,
        extra_fraction=0.7,
    )
    assert batches.rounds_per_epoch == 40 // 6
    batch = batches.batch(0)
    theirs = batch.index >= 40
    assert theirs.sum() == 14
    rows = (batch.index[theirs] - 40).numpy()
    image = torch.from_numpy(arrays["image"][rows]).permute(0, 3, 1, 2).double() / 255
    assert torch.equal(batch.x[theirs], image)
    assert batch.y[theirs].tolist() == arrays["label"][rows].tolist()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=5),
    packed=st.booleans(),
)
def test_damaged_bytes_raise_only_user_errors(tmp_path, changes, packed):
    file = tmp_path / "set.npz"
    (np.savez_compressed if packed else np.savez)(file, image=IMAGE, label=LABEL)
    damaged = bytearray(file.read_bytes())
    for place, value in changes:
        damaged[place % len(damaged)] = value
    file.write_bytes(damaged)
    only_user_errors(lambda: load(f"npz:{file}"))
