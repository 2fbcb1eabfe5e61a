"""Images of mixed sizes are brought to one, from every source that decodes files, for every part alike."""

import numpy as np
import pytest
import torch

from lasat_ray.api.explained import _read_file
from lasat_ray.config import DataConfig
from lasat_ray.data import ReadOptions, load_dataset
from lasat_ray.errors import UsageError

from .conftest import encode, error_of, pixels
from .test_folders import put
from .test_parquet import write


def halves(height, width):
    """Red on the left half, blue on the right."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[:, : width // 2, 0] = image[:, width // 2 :, 2] = 255
    return image


IMAGES = [halves(20, 40), halves(30, 30), halves(16, 48), pixels(1, 9, 7)]


@pytest.fixture
def place(tmp_path):
    for part in ("train", "test"):
        for n, image in enumerate(IMAGES):
            put(tmp_path / f"folder/{part}/{'ab'[n % 2]}/{n}.png", image)
        (tmp_path / "parquet").mkdir(exist_ok=True)
        write(
            tmp_path / f"parquet/{part}-0.parquet",
            [encode(image) for image in IMAGES],
            [0, 1, 0, 1],
            names="ab",
        )
    return tmp_path


def loaded(spelling, **options):
    return load_dataset(
        spelling, root=".", max_train=None, max_test=None, seed=0, options=ReadOptions(**options)
    )


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_every_source_gives_the_same_pixels_for_every_part(place, fit):
    folder = loaded(f"imagefolder:{place / 'folder'}", image_size=10, fit=fit)
    table = loaded(f"parquet:{place / 'parquet'}", image_size=10, fit=fit)
    stream = loaded(f"stream:{place / 'parquet'}", image_size=10, fit=fit)
    assert folder.image_shape == table.image_shape == stream.image_shape == (3, 10, 10)
    order = torch.tensor([0, 2, 1, 3])
    assert torch.equal(folder.train.x[order], table.train.x)
    assert torch.equal(stream.train.take(torch.arange(4)).x, table.train.x)
    assert torch.equal(folder.load_test().x[order], table.train.x)
    assert torch.equal(stream.load_test().x, table.train.x)
    for n, image in enumerate(IMAGES):
        file = put(place / f"alone/{n}.png", image)
        alone = _read_file(file, (3, 10, 10), DataConfig(image_size=10, fit=fit))
        assert torch.equal(alone, table.train.x[n])


def test_cutting_keeps_proportions_and_the_middle():
    """A square drawn into a wide image stays a square; stretched it does not."""
    from PIL import Image

    from lasat_ray.data.decode import _resized

    wide = np.zeros((40, 80, 3), dtype=np.uint8)
    wide[10:30, 30:50] = 255
    cut, stretched = (np.asarray(_resized(Image.fromarray(wide), 40, 40, fit)) for fit in ("crop", "stretch"))
    assert (cut == wide[:, 20:60]).all()
    bright = stretched[:, :, 0] > 127
    assert (bright.any(1).sum(), bright.any(0).sum()) == (20, 10)


def test_without_a_size_the_first_other_one_is_named(place):
    assert "30x30 but the first is" in error_of(lambda: loaded(f"parquet:{place / 'parquet'}"))
    told = error_of(lambda: loaded(f"imagefolder:{place / 'folder'}@8", image_size=10), UsageError)
    assert told.startswith("--data.image-size: 10 stands beside '@8'")
