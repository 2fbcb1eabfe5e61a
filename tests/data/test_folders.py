"""Image folders and Tiny ImageNet, built small; sizes, formats, classes and what may be wrong."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lasat_ray.data.decode import Encoded, decode_all, suffixes
from lasat_ray.errors import UsageError

from .conftest import encode, error_of, load, only_user_errors, pixels


def put(file, array, kind="PNG"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode(array, kind))
    return file


def as_tensor(arrays):
    return torch.from_numpy(np.stack([array.transpose(2, 0, 1) for array in arrays]))


@pytest.fixture
def folder(tmp_path):
    """Classes a (2 images) and b (1) to train, one of b to test."""
    put(tmp_path / "train/b/x.bmp", pixels(2), "BMP")
    put(tmp_path / "train/a/2.PNG", pixels(1))
    put(tmp_path / "train/a/1.png", pixels(0))
    put(tmp_path / "val/b/y.png", pixels(3))
    (tmp_path / "train/a/notes.txt").write_text("not an image")
    (tmp_path / "train/.hidden").mkdir()
    return tmp_path


def test_classes_and_files_in_alphabetical_order(folder):
    dataset = load(f"imagefolder:{folder}")
    assert dataset.class_names == ("a", "b") and dataset.train.y.tolist() == [0, 0, 1]
    assert torch.equal(dataset.train.x, as_tensor([pixels(0), pixels(1), pixels(2)]))
    test = dataset.load_test()
    assert torch.equal(test.x, as_tensor([pixels(3)])) and test.y.tolist() == [1]


@pytest.mark.parametrize("name", ["test", "valid", "validation"])
def test_other_names_of_the_test_folder(folder, name):
    (folder / "val").rename(folder / name)
    assert len(load(f"imagefolder:{folder}").load_test()) == 1


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_decode_as_pil_does(folder, kind):
    file = put(folder / f"train/a/1.{kind.lower()}", pixels(0), kind)
    (folder / "train/a/1.png").unlink()
    with Image.open(file) as image:
        assert torch.equal(load(f"imagefolder:{folder}").train.x[:1], as_tensor([np.asarray(image)]))


def test_size_resizes_what_differs(folder):
    big = pixels(7, 9, 13)
    put(folder / "train/a/0.png", big)
    text = error_of(lambda: load(f"imagefolder:{folder}"))
    assert text == (
        f"{folder}/train/a/1.png: image is 6x6 but the first is 13x9; "
        f"write imagefolder:{folder}@SIZE to resize all"
    )
    dataset = load(f"imagefolder:{folder}@6")
    resized = np.asarray(Image.fromarray(big).resize((6, 6), Image.Resampling.BILINEAR))
    assert torch.equal(dataset.train.x[0], as_tensor([resized])[0])
    assert torch.equal(dataset.train.x[1:], as_tensor([pixels(0), pixels(1), pixels(2)]))
    assert load(f"imagefolder:{folder}@4").load_test().x.shape == (1, 3, 4, 4)


def test_a_path_that_holds_an_at_sign_is_taken_as_written(folder):
    at = folder.rename(folder.parent / "set@2")
    assert load(f"imagefolder:{at}").image_shape == (3, 6, 6)
    assert load(f"imagefolder:{at}@3").image_shape == (3, 3, 3)
    assert error_of(lambda: load(f"imagefolder:{folder}@x"), UsageError) == (
        "--dataset: '@x' is not a size; write for example imagefolder:PATH@32"
    )


def test_what_a_folder_may_lack(folder):
    def text():
        return error_of(lambda: load(f"imagefolder:{folder}").load_test())

    (folder / "val/c").mkdir()
    assert text() == (
        f"{folder}/val: class 1 is 'c', which is no class of the training images (its class 1 is 'b'); "
        "rename or remove it"
    )
    (folder / "val/c").rmdir()
    (folder / "val/b/y.png").unlink()
    assert text() == f"imagefolder:{folder}: holds no test images; check the path"
    (folder / "train/b/x.bmp").unlink()
    assert text() == (f"{folder}/train/b: holds no image ({', '.join(suffixes())}); add some or remove it")
    (folder / "val").rename(folder / "holdout")
    assert text() == f"{folder}: holds no folder test, val, valid, validation; add the test images there"
    assert error_of(lambda: load("imagefolder:/no/such")) == (
        "/no/such/train: no such folder; write imagefolder:PATH with the folder that holds train"
    )
    (folder / "empty/train").mkdir(parents=True)
    (folder / "empty/test").mkdir()
    assert error_of(lambda: load(f"imagefolder:{folder}/empty")) == (
        f"{folder}/empty/train: holds no class folders; put the images into {folder}/empty/train/CLASS"
    )


IDAT = struct.pack(">I", 9) + b"IDAT"


def png_header(width, height):
    """A PNG that declares a size and holds no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + IDAT


@pytest.mark.parametrize("side", ["", "@6"])
def test_damaged_images_are_named(folder, side):
    file = folder / "train/a/1.png"
    whole = file.read_bytes()
    cases = {
        b"": "is empty; replace it with an undamaged copy",
        whole[:70]: "cannot be read (",
        b"\x89PNG": "is no image that can be read (JPEG, PNG, ",
        png_header(8193, 8192): "declares 8193x8192 pixels, over the limit of 67,108,864; "
        "remove it or make it smaller",
        png_header(60_000, 60_000): "cannot be read (Image size (3600000000 pixels) exceeds limit",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n": "is no image that can be read (JPEG, PNG, ",
    }
    for blob, text in cases.items():
        file.write_bytes(blob)
        assert error_of(lambda: load(f"imagefolder:{folder}{side}")).startswith(f"{file}: {text}")
    file.unlink()
    file.mkdir()
    assert error_of(lambda: load(f"imagefolder:{folder}{side}")).startswith(f"{file}: is no ordinary file; ")


JPEG = encode(pixels(0, 16, 16), "JPEG")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=5),
    length=st.integers(1, 10**4),
    blob=st.sampled_from([JPEG, encode(pixels(0)), encode(pixels(0), "BMP"), encode(pixels(0), "WEBP")]),
)
def test_damaged_bytes_raise_only_user_errors(changes, length, blob):
    damaged = bytearray(blob)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    encoded = Encoded(1, lambda n: bytes(damaged[:length]), lambda n: f"image {n}")
    only_user_errors(lambda: decode_all(encoded, remedy="x"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_colour_mode_becomes_grey_or_colour(mode):
    source = Image.fromarray(pixels(3)).convert(mode)
    out = io.BytesIO()
    source.save(out, "JPEG" if mode == "CMYK" else "PNG")
    x = decode_all(Encoded(1, lambda n: out.getvalue(), str), remedy="")
    grey = mode in ("1", "L", "LA")
    with Image.open(out) as image:
        want = np.asarray(image.convert("L" if grey else "RGB")).reshape(6, 6, -1)
    assert torch.equal(x, as_tensor([want])) and x.shape[1] == (1 if grey else 3)


def test_many_images_come_out_in_order():
    arrays = [pixels(n, 4, 5) for n in range(300)]
    blobs = [encode(array) for array in arrays]
    assert torch.equal(decode_all(Encoded(300, blobs.__getitem__, str), remedy=""), as_tensor(arrays))


def test_the_first_wrong_image_is_the_one_named():
    blobs = [encode(pixels(0)) if n not in (70, 250) else b"?" for n in range(300)]
    assert error_of(lambda: decode_all(Encoded(300, blobs.__getitem__, str), remedy="")).startswith("70: ")


def test_images_that_do_not_fit_into_memory_are_refused(monkeypatch):
    monkeypatch.setattr("lasat_ray.data.guard.free_bytes", lambda: 2**30)
    blob = encode(np.zeros((1024, 1024, 3), dtype=np.uint8))
    assert error_of(lambda: decode_all(Encoded(1000, lambda n: blob, str), remedy="")) == (
        "0: needs 2.9 GiB and 1.0 GiB of memory is free; use fewer or smaller images"
    )


@pytest.fixture
def tiny(tmp_path):
    """Two classes, two training images each, one of them grey; three validation images."""
    root = tmp_path / "tiny-imagenet-200"
    for n, wnid in enumerate(("n02", "n01")):
        put(root / f"train/{wnid}/images/{wnid}_0.JPEG", pixels(n, 8, 8), "JPEG")
        put(root / f"train/{wnid}/images/{wnid}_1.JPEG", pixels(n + 2, 8, 8, channels=1 + 2 * n), "JPEG")
    for n in range(3):
        put(root / f"val/images/val_{n}.JPEG", pixels(n + 4, 8, 8), "JPEG")
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tshark\nn03\tcrane\n")
    lines = [f"val_{n}.JPEG\tn0{1 + n % 2}\t0\t0\t7\t7\n" for n in range(3)]
    (root / "val/val_annotations.txt").write_text("".join(lines))
    return root


def test_imagenet_100_as_it_is_laid_out(tmp_path):
    """train and val with a folder a WordNet number; photographs of any size, some grey or for print."""
    wnids = [f"n{number:08d}" for number in range(1440764, 1440764 + 100)]
    for n, wnid in enumerate(wnids):
        put(tmp_path / f"train/{wnid}/{wnid}_18.JPEG", pixels(n, 12, 16, 1 if n % 3 else 3), "JPEG")
        put(tmp_path / f"val/{wnid}/ILSVRC2012_val_{n:08d}.JPEG", pixels(n, 20, 10), "JPEG")
    print_colours = Image.fromarray(pixels(0, 12, 16)).convert("CMYK")
    print_colours.save(tmp_path / f"train/{wnids[7]}/{wnids[7]}_9.JPEG", "JPEG")
    put(tmp_path / f"train/{wnids[8]}/{wnids[8]}_9.JPEG", pixels(5, 9, 9), "PNG")  # one such is in ImageNet
    dataset = load(f"imagefolder:{tmp_path}@8")
    assert dataset.class_names == tuple(wnids) and dataset.image_shape == (3, 8, 8)
    assert torch.bincount(dataset.train.y).tolist() == [1] * 7 + [2, 2] + [1] * 91
    test = dataset.load_test()
    assert test.y.tolist() == list(range(100)) and test.x.shape == (100, 3, 8, 8)


def test_tiny_imagenet_as_it_unpacks(tiny):
    dataset = load("tiny-imagenet", tiny.parent)
    assert dataset.class_names == ("goldfish, Carassius auratus", "shark")
    assert dataset.image_shape == (3, 8, 8) and dataset.train.y.tolist() == [0, 0, 1, 1]
    grey = dataset.train.x[3]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])
    test = dataset.load_test()
    assert len(test) == 3 and test.y.tolist() == [0, 1, 0]
    with Image.open(tiny / "val/images/val_2.JPEG") as image:
        assert torch.equal(test.x[2:], as_tensor([np.asarray(image)]))


def test_tiny_imagenet_without_words_is_named_by_wnid(tiny):
    (tiny / "words.txt").unlink()
    assert load("tiny-imagenet", tiny.parent).class_names == ("n01", "n02")


def test_only_grey_rows_of_tiny_imagenet_still_have_three_channels(tiny):
    for file in (tiny / "train").rglob("*.JPEG"):
        put(file, pixels(0, 8, 8, channels=1), "JPEG")
    assert load("tiny-imagenet", tiny.parent).image_shape == (3, 8, 8)


def test_what_tiny_imagenet_may_lack(tiny):
    url = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

    def text():
        return error_of(lambda: load("tiny-imagenet", tiny.parent).load_test())

    table = tiny / "val/val_annotations.txt"
    lines = table.read_text()
    for line in ("val_1.JPEG\tn09\t0", "val_1.JPEG", "../x.JPEG\tn01"):
        table.write_text(f"val_0.JPEG\tn01\t0\t0\t7\t7\n{line}\n")
        shown = line.replace("\t", " ")  # an error is one line without control characters
        assert text() == f"{table} row 1: '{shown}' names no image and class; unzip {url} again"
    table.write_text("")
    assert text() == f"{table}: is empty; unzip {url} again"
    table.write_bytes(b"\xff\xfe\x00")
    assert text().startswith(f"{table}: cannot be read (")
    table.write_text(lines)
    (tiny / "val/images/val_1.JPEG").unlink()
    assert text() == f"{tiny}/val/images/val_1.JPEG: no such file; check the path"
    (tiny / "train/n01/images").rename(tiny / "train/n01/moved")
    assert text() == f"{tiny}/train/n01/images: holds no *.JPEG; unzip {url} again"
    (tiny / "wnids.txt").unlink()
    assert text() == (f"tiny-imagenet: {tiny}/wnids.txt is missing; unzip {url} (237 MB) in {tiny.parent}")
