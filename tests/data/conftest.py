"""Small images to test with, and the folder of real ones where there is one."""

import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lasat_ray.data import Images, load_dataset
from lasat_ray.errors import UserError

REPO = Path(__file__).resolve().parents[2]


def make_images(count, shape=(3, 8, 8), num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    return Images(x, torch.arange(count) % num_classes)


def pixels(seed, height=6, width=6, channels=3):
    """uint8 [H,W,3], or [H,W] for one channel."""
    array = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return array if channels == 3 else array[..., 0]


def encode(array, kind="PNG", **options):
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **options)
    return out.getvalue()


def load(spelling, root="nowhere", max_train=None, max_test=None, seed=0):
    return load_dataset(str(spelling), root=str(root), max_train=max_train, max_test=max_test, seed=seed)


def error_of(act, kind=UserError):
    """The text of the error; it must be one line."""
    with pytest.raises(kind) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text and type(caught.value) is kind
    return text


def only_user_errors(act):
    """Run it; a UserError is fine if it is one line, any other exception is ours to explain."""
    with contextlib.suppress(UserError):
        try:
            act()
        except UserError as error:
            if "\n" in str(error):
                raise AssertionError(f"more than one line: {error}") from error
            raise


@pytest.fixture
def images():
    return make_images(53)


@pytest.fixture
def real_data():
    folder = Path(os.environ.get("LASAT_TEST_DATA", REPO / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real images; set LASAT_TEST_DATA")
    return folder
