"""IDBH and AugMix by batches against slow references, image by image: operations of torchvision and PIL."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as tv

from lasat_ray.config import DataConfig
from lasat_ray.data.augment import augment, check_augment
from lasat_ray.data.augmix import OPERATIONS, augmix, chained, operation
from lasat_ray.data.idbh import SPACES, color_shape, crop_shift, random_erasing
from lasat_ray.errors import UsageError
from lasat_ray.rng import RandomKey

from .conftest import make_images

KEY = RandomKey.of(3)
F64 = torch.float64


def slow_crop_shift(image, u, strength):
    height, width = image.shape[1:]
    lost = int(u[0] * (strength + 1))
    lost_x = int(u[1] * (lost + 1))
    lost_y = lost - lost_x
    cut_x, put_x = int(u[4] * (lost_x + 1)), int(u[5] * (lost_x + 1))
    cut_y, put_y = int(u[2] * (lost_y + 1)), int(u[3] * (lost_y + 1))
    part = tv.crop(image, cut_y, cut_x, height - lost_y, width - lost_x)
    return tv.crop(tv.pad(part, [lost_x, lost_y]), put_y, put_x, height, width)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 9)])
def test_crop_shift_is_the_slow_one(shape):
    x, index = make_images(300, shape).x, torch.arange(300) + 5
    u = KEY.fold_in("crop-shift").uniform(index, (6,), F64)
    found = crop_shift(x, index, KEY, 4)
    slow = torch.stack([slow_crop_shift(x[n], u[n].tolist(), 4) for n in range(300)])
    assert torch.equal(found, slow) and not torch.equal(found, x)
    lost = (found == 0).all(1)
    assert (lost.all(1).sum(1) + lost.all(2).sum(1)).max() >= 4  # rows and columns together


def slow_erasing(image, u, probability, largest):
    out, (height, width) = image.clone(), image.shape[1:]
    if u[0] >= probability:
        return out
    for area, ratio, top, left in u[1:].view(10, 4).tolist():
        area = height * width * (0.02 + (largest - 0.02) * area)
        ratio = math.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * ratio)
        rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if rows < height and columns < width:
            i, j = int(top * (height - rows + 1)), int(left * (width - columns + 1))
            return tv.erase(out, i, j, rows, columns, torch.tensor(0, dtype=out.dtype))
    return out


@pytest.mark.parametrize(("probability", "largest"), [(0.5, 0.33), (1.0, 0.5)])
def test_random_erasing_is_torchvision_s_rectangle(probability, largest):
    x, index = make_images(300, (3, 9, 7)).x, torch.arange(300)
    u = KEY.fold_in("erasing").uniform(index, (41,), F64)
    found = random_erasing(x, index, KEY, probability, largest)
    slow = torch.stack([slow_erasing(x[n], u[n], probability, largest) for n in range(300)])
    assert torch.equal(found, slow)
    changed = (found != x).flatten(1).any(1).double().mean()
    assert abs(float(changed) - probability) < 0.1


def slow_color_shape(image, u, space):
    ends = [sum(p for p, *_ in SPACES[space][: n + 1]) for n in range(8)]
    _, name, low, high = next(op for op, end in zip(SPACES[space], ends, strict=True) if u[0] < end)
    strength = low + (high - low) * u[1]
    strength = float(int(strength)) if name == "rotate" else strength
    signed = -strength if u[2] < 0.5 else strength
    degrees = math.degrees(signed)
    shear = [degrees, 0.0] if u[3] < 0.5 else [0.0, degrees]
    return name, {
        "color": lambda: tv.adjust_saturation(image, strength),
        "brightness": lambda: tv.adjust_brightness(image, strength),
        "contrast": lambda: tv.adjust_contrast(image, strength),
        "sharpness": lambda: tv.adjust_sharpness(image, strength),
        "autocontrast": lambda: tv.autocontrast(image),
        "equalize": lambda: tv.equalize(image),
        "shear": lambda: tv.affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=shear, fill=[0.0]),
        "rotate": lambda: tv.rotate(image, angle=signed, fill=[0.0]),
    }[name]()


@pytest.mark.parametrize("space", SPACES)
def test_color_shape_is_torchvision_s_image_by_image(space):
    x, index = make_images(400, (3, 12, 9)).x, torch.arange(400) + 7
    u = KEY.fold_in("color-shape").uniform(index, (4,), F64)
    found, seen = color_shape(x, index, KEY, space), set()
    for n in range(400):
        name, wanted = slow_color_shape(x[n], u[n].tolist(), space)
        assert torch.equal(found[n], wanted), (name, n)
        seen.add(name)
    assert len(seen) == 8
    assert sum(probability for probability, *_ in SPACES[space]) == pytest.approx(1)


def pil_operation(name, image, level, back):
    """AugMix's operation, in PIL."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    sign, size = (-1 if back else 1), picture.size
    how = Image.Transform.AFFINE, Image.Resampling.BILINEAR

    def whole(most):
        return int(level * most / 10)

    def warped(*numbers):
        return picture.transform(size, how[0], numbers, resample=how[1])

    done = {
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "posterize": lambda: ImageOps.posterize(picture, 4 - whole(4)),
        "solarize": lambda: ImageOps.solarize(picture, 256 - whole(256)),
        "rotate": lambda: picture.rotate(sign * whole(30), resample=Image.Resampling.BILINEAR),
        "shear_x": lambda: warped(1, sign * level * 0.03, 0, 0, 1, 0),
        "shear_y": lambda: warped(1, 0, 0, sign * level * 0.03, 1, 0),
        "translate_x": lambda: warped(1, 0, sign * whole(size[0] / 3), 0, 1, 0),
        "translate_y": lambda: warped(1, 0, 0, 0, 1, sign * whole(size[1] / 3)),
    }[name]()
    return torch.from_numpy(np.array(done)).permute(2, 0, 1)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_operations_of_augmix_are_pil_s(name):
    x = make_images(60, (3, 16, 12)).x
    level = 0.1 + 2.9 * torch.rand(60, dtype=F64, generator=torch.Generator().manual_seed(0))
    back = torch.arange(60) % 2 == 0
    found = operation(name, x, level, back)
    gaps = []
    for n in range(60):
        wanted = pil_operation(name, x[n], float(level[n]), bool(back[n]))
        gaps.append((found[n].int() - wanted.int()).abs())
    gap = torch.stack(gaps)
    # A table of 256 gray levels rounded in double precision there, in single here.
    assert gap.max() <= 1 and (gap > 0).double().mean() < 0.01


def test_augmix_mixes_three_chains_of_one_to_three_operations():
    x, index = make_images(40, (3, 10, 10)).x, torch.arange(40) + 100
    found, key = augmix(x, index, KEY), KEY.fold_in("augmix")
    weights = -torch.log1p(-key.fold_in("weights").uniform(index, (3,), F64))
    share, depths = key.fold_in("share").uniform(index, (1,), F64), set()
    for n in range(40):
        mixture = torch.zeros(3, 10, 10, dtype=F64)
        for chain in range(3):
            own, image = key.fold_in("chain", chain), x[n : n + 1]
            depth = int(own.fold_in("depth").uniform(index[n : n + 1], (1,), F64) * 3) + 1
            depths.add(depth)
            for stage in range(depth):
                u = own.fold_in("operation", stage).uniform(index[n : n + 1], (3,), F64)[0]
                name, level = OPERATIONS[int(u[0] * 9)], 0.1 + 2.9 * u[1:2]
                image = operation(name, image, level, u[2:] > 0.5)
            mixture += weights[n, chain] / weights[n].sum() * image[0]
        wanted = ((1 - share[n]) * x[n] + share[n] * mixture) / 255
        torch.testing.assert_close(found[n].double(), wanted, rtol=0, atol=1e-7)
    assert depths == {1, 2, 3} and found.min() >= 0 and found.max() <= 1
    assert torch.equal(chained(x, index, KEY)[3:4], chained(x[3:4], index[3:4], KEY))


WAYS = [
    {"policy": "augmix"},
    {"policy": "color-biased", "crop_shift": 3, "erasing": 0.5},
    {"policy": "shape-biased", "crop_shift": 3, "erasing": 1.0, "erasing_area": 0.5},
]


@pytest.mark.parametrize("ways", WAYS, ids=lambda ways: ways["policy"])
def test_an_image_is_varied_by_its_index_alone(ways):
    config = DataConfig(crop_padding=0, **ways)
    x, index, key = make_images(30, (3, 8, 8)).x, torch.arange(100, 130), RandomKey.of(1, "augment", 7)
    check_augment(config, (3, 8, 8))
    whole = augment(x, index, key, config)
    alone = torch.cat([augment(x[n : n + 1], index[n : n + 1], key, config) for n in range(30)])
    assert torch.equal(whole, alone)
    again = augment(x, index, RandomKey.of(1, "augment", 8), config)
    assert not torch.equal(whole, again)


REFUSED = [
    ({"crop_shift": 8, "crop_padding": 0}, "--data.crop-shift: 8 .* images 8 pixels"),
    ({"crop_shift": 2}, "--data.crop-shift: 2 and --data.crop-padding 4 both crop"),
    ({"erasing_area": 0.5}, "--data.erasing-area: 0.5 has no effect without --data.erasing"),
]


@pytest.mark.parametrize(("ways", "told"), REFUSED)
def test_what_cannot_be_is_refused(ways, told):
    with pytest.raises(UsageError, match=told):
        check_augment(DataConfig(**ways), (3, 8, 8))


@pytest.mark.parametrize("policy", ["color-biased", "shape-biased"])
def test_gray_images_have_no_colours_to_vary(policy):
    with pytest.raises(
        UsageError, match=f"--data.policy: '{policy}' varies colours, but images have 1 channel"
    ):
        check_augment(DataConfig(policy=policy), (1, 8, 8))
    check_augment(DataConfig(policy="augmix"), (1, 8, 8))
