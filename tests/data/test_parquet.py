"""Image parquet: small real files, the folders of real images, and every way to be wrong."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import encode, error_of, load, only_user_errors, pixels

NAMES = ["cat", "dog", "owl"]


def write(file, blobs, labels, *, image="image", label="label", names=None, plain=False, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    column = pa.array(blobs if plain else [{"bytes": blob, "path": None} for blob in blobs])
    table = pa.table({image: column, label: labels})
    if names:
        features = {label: {"names": names, "_type": "ClassLabel"}}
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({b"huggingface": text.encode()})
    pq.write_table(table, file, **options)
    return file


@pytest.fixture
def folder(tmp_path):
    """Two training files of 7 and 5 rows in groups of 3, five test rows."""
    arrays = [pixels(n) for n in range(17)]
    blobs, labels = [encode(a) for a in arrays], [n % 3 for n in range(17)]
    write(tmp_path / "train-00000-of-00002.parquet", blobs[:7], labels[:7], names=NAMES, row_group_size=3)
    write(tmp_path / "train-00001-of-00002.parquet", blobs[7:12], labels[7:12], names=NAMES, row_group_size=3)
    write(tmp_path / "test-00000-of-00001.parquet", blobs[12:], labels[12:], names=NAMES)
    return tmp_path


def expected(rows):
    return torch.from_numpy(np.stack([pixels(n).transpose(2, 0, 1) for n in rows]))


def test_all_rows_of_all_files_in_order(folder):
    dataset = load(f"parquet:{folder}")
    assert dataset.class_names == tuple(NAMES) and dataset.name == f"parquet:{folder}"
    assert torch.equal(dataset.train.x, expected(range(12)))
    assert dataset.train.y.tolist() == [n % 3 for n in range(12)]
    assert torch.equal(dataset.load_test().x, expected(range(12, 17)))


def test_only_the_chosen_rows_are_decoded(folder, monkeypatch):
    whole = load(f"parquet:{folder}").train
    opened = []
    from lasat_ray.data import decode

    inner = decode._decode_one
    monkeypatch.setattr(decode, "_decode_one", lambda e, n, *s: opened.append(e.where(n)) or inner(e, n, *s))
    some = load(f"parquet:{folder}", max_train=4, seed=2).train
    assert len(some) == 4 and len(set(opened)) == 4
    rows = [next(row for row in range(12) if torch.equal(whole.x[row], x)) for x in some.x]
    assert rows == sorted(set(rows)) and torch.equal(some.y, whole.y[rows])
    names = [f"train-0000{row // 7}-of-00002.parquet row {row % 7}" for row in rows]
    assert {name.split("/")[-1] for name in opened} == set(names)


def test_plain_binary_fine_labels_numbers_for_names_and_a_folder_of_folders(tmp_path):
    blobs = [encode(pixels(n)) for n in range(3)]
    columns = {"image": "img", "label": "fine_label"}
    for split in ("train", "validation"):
        write(tmp_path / f"data/{split}-0.parquet", blobs, [0, 2, 1], plain=True, **columns)
    (tmp_path / "other").mkdir()
    dataset = load(f"parquet:{tmp_path}")
    assert dataset.class_names == ("0", "1", "2") and dataset.load_test().y.tolist() == [0, 2, 1]
    assert torch.equal(dataset.train.x, expected(range(3)))


@pytest.mark.parametrize("metadata", [None, b"{}", b'{"info": {"features": {"label": {"names": null}}}}'])
def test_without_names_classes_are_numbered(folder, metadata):
    for file in folder.glob("*.parquet"):
        table = pq.read_table(file).replace_schema_metadata({b"huggingface": metadata} if metadata else None)
        pq.write_table(table, file)
    assert load(f"parquet:{folder}").class_names == ("0", "1", "2")


def test_grey_images_among_coloured_ones_become_coloured(tmp_path):
    blobs = [encode(pixels(0, channels=1)), encode(pixels(1)), encode(pixels(2, channels=1))]
    write(tmp_path / "train-0.parquet", blobs, [0, 1, 1])
    write(tmp_path / "test-0.parquet", blobs[:1], [0])
    dataset = load(f"parquet:{tmp_path}")
    grey = torch.from_numpy(pixels(0, channels=1))
    assert dataset.image_shape == (3, 6, 6)
    assert torch.equal(dataset.train.x[0], grey.expand(3, 6, 6))
    assert torch.equal(dataset.load_test().x[0], grey.expand(3, 6, 6))


def test_a_grey_set_keeps_one_channel_and_refuses_coloured_test_images(tmp_path):
    write(tmp_path / "train-0.parquet", [encode(pixels(0, channels=1), "JPEG")], [0])
    file = write(tmp_path / "test-0.parquet", [encode(pixels(1))], [0])
    dataset = load(f"parquet:{tmp_path}")
    assert dataset.image_shape == (1, 6, 6)
    assert error_of(dataset.load_test) == (
        f"{file} row 0: has colour but the training images are grey; convert one or the other"
    )


GOOD = [encode(pixels(0)), encode(pixels(1)), encode(pixels(2))]
DEEP = encode(np.zeros((6, 6), dtype=np.int32), "TIFF")
WRONG = [
    ([GOOD[0], GOOD[1][:60], GOOD[2]], [0, 1, 2], " row 1: cannot be read ("),
    ([GOOD[0], b"hello", GOOD[2]], [0, 1, 2], " row 1: is no image that can be read (JPEG, PNG, "),
    ([GOOD[0], b"", GOOD[2]], [0, 1, 2], " row 1: is empty; replace it with an undamaged copy"),
    ([GOOD[0], None, GOOD[2]], [0, 1, 2], " row 1: holds no image bytes; embed the image in the file"),
    ([*GOOD[:2], DEEP], [0, 1, 2], " row 2: has more than 16 bits a channel; convert it to 8 bits"),
    (GOOD, [0, 3, 2], " row 1: label 3 is outside 0..2; correct or remove that row"),
    (GOOD, [0, 1, -1], " row 2: label -1 is outside 0..2; correct or remove that row"),
    (GOOD, [0, None, 2], " row 1: has no label; correct or remove that row"),
    (GOOD, [0.0, 1.0, 2.0], ": column label is double; want integers"),
    (GOOD, ["0", "1", "2"], ": column label is string; want integers"),
    (
        [*GOOD[:2], encode(pixels(2, 5, 7))],
        [0, 1, 2],
        " row 2: image is 7x5 but the first is 6x6; write all rows with one size, or give --data.image-size",
    ),
]


@pytest.mark.parametrize(("blobs", "labels", "text"), WRONG)
def test_a_wrong_row_is_named(tmp_path, blobs, labels, text):
    train = write(tmp_path / "train-0.parquet", blobs, labels, names=NAMES, row_group_size=2)
    test = write(tmp_path / "test-0.parquet", GOOD, [0, 1, 2])
    assert error_of(lambda: load(f"parquet:{tmp_path}")).startswith(f"{train}{text}")
    train.rename(tmp_path / "aside")
    test.rename(train)
    (tmp_path / "aside").rename(test)
    load_test = load(f"parquet:{tmp_path}").load_test
    assert error_of(load_test).startswith(f"{test}{text}")


def test_wrong_columns_and_metadata_are_named(tmp_path):
    train, test = tmp_path / "train-0.parquet", tmp_path / "test-0.parquet"

    def text(**options):
        write(train, **{"blobs": GOOD, "labels": [0, 1, 2], **options})
        write(test, GOOD, [0, 1, 2])
        return error_of(lambda: load(f"parquet:{tmp_path}"))

    assert text(image="photo") == (
        f"{train}: has no column img or image (found photo, label); name one with --data.image-column"
    )
    assert text(label="y") == (
        f"{train}: has no column label or fine_label (found image, y); name one with --data.label-column"
    )
    pq.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), train)
    assert error_of(lambda: load(f"parquet:{tmp_path}")) == (
        f"{train} row 0: image column is int64; want encoded bytes, embedded in the file"
    )
    table = pa.table({"image": GOOD, "label": [0, 1, 2]}).replace_schema_metadata({b"huggingface": b"{no"})
    pq.write_table(table, train)
    assert error_of(lambda: load(f"parquet:{tmp_path}")).startswith(f"{train}: cannot be read (")


def test_one_label_out_of_all_reason_does_not_make_a_giant_net(tmp_path):
    train = write(tmp_path / "train-0.parquet", GOOD, [0, 2**40, 1])
    write(tmp_path / "test-0.parquet", GOOD, [0, 1, 2])
    assert error_of(lambda: load(f"parquet:{tmp_path}")) == (
        f"{train} row 1: label 1099511627776 is outside 0..65535; correct or remove that row"
    )


def test_missing_and_empty_files_are_named(tmp_path):
    path = f"parquet:{tmp_path}"
    assert error_of(lambda: load("parquet:/no/such")) == (
        "/no/such: no such folder; write parquet:PATH with the folder of train-*.parquet"
    )
    assert error_of(lambda: load(path)) == f"{tmp_path}: holds no train-*.parquet; name the folder that does"
    train = write(tmp_path / "train-0.parquet", GOOD, [0, 1, 2])
    assert error_of(lambda: load(path)) == f"{tmp_path}: holds no test-*.parquet; add the test images there"
    test = write(tmp_path / "test-0.parquet", [], pa.array([], pa.int64()), plain=True)
    assert error_of(load(path).load_test) == f"{path}: holds no test images; check the path"
    test.write_bytes(b"")
    assert error_of(load(path).load_test).startswith(f"{test}: cannot be read (")
    train.write_bytes(train.read_bytes()[:-100])
    assert error_of(lambda: load(path)).startswith(f"{train}: cannot be read (")
    write(train, [], pa.array([], pa.int64()), plain=True)
    assert error_of(lambda: load(path)) == f"{path}: holds no training images; check the path"
    for name in "ab":
        write(tmp_path / "two" / name / "train-0.parquet", GOOD, [0, 1, 2])
    assert error_of(lambda: load(f"parquet:{tmp_path}/two")) == (
        f"{tmp_path}/two: train-*.parquet is in a and b; name one of them"
    )


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6))
def test_damaged_bytes_raise_only_user_errors(folder, changes):
    file = folder / "train-00000-of-00002.parquet"
    whole = file.read_bytes()
    damaged = bytearray(whole)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    file.write_bytes(damaged)
    only_user_errors(lambda: load(f"parquet:{folder}").load_test())
    file.write_bytes(whole)


REAL = {
    "cifar10": ((3, 32, 32), 10, 50_000, 10_000, "airplane"),
    "gtsrb": ((3, 32, 32), 43, 25_087, 7_949, "100_kmh"),
    "tiny-imagenet-35k": ((3, 64, 64), 200, 30_000, 5_000, "n01443537"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_images(real_data, name):
    shape, num_classes, n_train, n_test, first_name = REAL[name]
    dataset = load(f"parquet:{real_data / name}", max_train=500, max_test=200)
    test = dataset.load_test()
    assert dataset.image_shape == shape and dataset.num_classes == num_classes
    assert (len(dataset.train), len(test)) == (500, 200) and dataset.class_names[0] == first_name
    assert 40 < test.x.float().mean() < 215 and test.y.unique().numel() > 0.4 * num_classes
    rows = [
        sum(pq.ParquetFile(file).metadata.num_rows for file in (real_data / name).glob(pattern))
        for pattern in ("train-*", "[tv][ea][sl]*")
    ]
    assert rows == [n_train, n_test]


def test_one_image_repeated_in_every_row_is_refused_before_memory_is_taken(tmp_path):
    """A dictionary holds the image once; unpacked the column would have 80 GB."""
    large = encode(pixels(0, 200, 200))  # 120 kB, does not shrink
    rows = 700_000
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([large]))
    table = pa.table({"image": column, "label": pa.array(np.zeros(rows, np.int64))})
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}-0.parquet", row_group_size=rows)
    assert (tmp_path / "train-0.parquet").stat().st_size < 200_000
    before = pa.total_allocated_bytes()
    text = error_of(lambda: load(f"parquet:{tmp_path}", max_train=3))
    assert "train-0.parquet row group 0: unpacks" in text and "over the limit of 200 times" in text
    assert pa.total_allocated_bytes() - before < 2**28


def test_rows_without_end_are_refused_by_the_footer(tmp_path):
    rows = 3_000_000
    table = pa.table({"image": pa.array([b""] * rows), "label": pa.array(np.zeros(rows, np.int64))})
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}-0.parquet")
    assert "label: unpacks" in error_of(lambda: load(f"parquet:{tmp_path}"))


def test_a_page_that_unpacks_a_thousandfold_is_refused(tmp_path):
    blobs = [b"\0" * 2**20] * 40
    write(tmp_path / "train-0.parquet", blobs, [0] * 40, plain=True, compression="zstd", use_dictionary=False)
    write(tmp_path / "test-0.parquet", [encode(pixels(0))], [0])
    assert "train-0.parquet row group 0: unpacks" in error_of(lambda: load(f"parquet:{tmp_path}"))
