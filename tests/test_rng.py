"""Random numbers by name: uniform, independent of one another, the same however a batch is cut."""

import itertools
import math

import pytest
import torch
from scipy import stats

from lasat_ray.rng import RandomKey

STREAM = RandomKey.of(0, "test", 7)
F64 = torch.float64


def uniform(key=STREAM, count=200, shape=(50,), dtype=F64, first=0):
    return key.uniform(torch.arange(first, first + count), shape, dtype)


@pytest.mark.parametrize(
    "name", [(0, "attack start", 0), (0, "attack start", 1), (1, "action", 5), (2**31, "x")]
)
def test_uniform_numbers_are_uniform(name):
    u = uniform(RandomKey.of(*name), 2000).flatten()
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    counts = torch.histc(u, 256, 0, 1)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert u.min() < 1e-4 and u.max() > 1 - 1e-4


def test_every_bit_is_fair_and_the_low_ones_too():
    bits = (uniform(count=2000) * 2**24).long()
    n = bits.numel()
    for bit in range(24):
        ones = int((bits >> bit & 1).sum())
        assert abs(ones - n / 2) < 4.5 * math.sqrt(n) / 2, bit


def test_pairs_fill_the_square():
    """Neighbours within an image, across images, across rounds and across roles, on a 16 x 16 grid."""
    here = uniform(count=1000)
    pairs = {
        "within": (here[:, :-1], here[:, 1:]),
        "images": (here[:-1], here[1:]),
        "far images": (here[:-256], here[256:]),
        "rounds": (here, uniform(RandomKey.of(0, "test", 8), 1000)),
        "roles": (here, uniform(RandomKey.of(0, "action", 7), 1000)),
        "seeds": (here, uniform(RandomKey.of(1, "test", 7), 1000)),
        "children": (here, uniform(STREAM.fold_in(1), 1000)),
    }
    for name, (a, b) in pairs.items():
        cells = ((a * 16).long() * 16 + (b * 16).long()).flatten()
        counts = torch.bincount(cells, minlength=256)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3, name
        r = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(r) * math.sqrt(a.numel()) < 4, name


def test_means_over_images_and_over_places_are_unsuspicious():
    u = uniform(count=1000, shape=(100,))
    for axis in (0, 1):
        z = (u.mean(axis) - 0.5) * math.sqrt(12 * u.shape[axis])
        assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3


def test_numbers_are_drawn_once():
    """24 bits: of 100,000 numbers some 298 pairs agree by chance, no more."""
    u = uniform(count=2000).flatten()
    repeated = len(u) - len(u.unique())
    expected = len(u) ** 2 / 2 / 2**24
    assert abs(repeated - expected) < 5 * math.sqrt(expected)


def test_numbers_lie_in_0_to_1_and_float32_holds_them_exactly():
    single, double = uniform(dtype=torch.float32, count=4000), uniform(count=4000)
    assert torch.equal(single.double(), double)
    assert double.min() >= 0 and double.max() < 1 and single.max() < 1
    assert torch.equal((double * 2**24).round(), double * 2**24)


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_an_images_numbers_depend_on_its_row_alone(draw):
    index = torch.tensor([3, 70_000, 0, 3, 11, 2**31 + 5])
    whole = getattr(STREAM, draw)(index, (2, 3), F64)
    assert whole.shape == (6, 2, 3) and torch.equal(whole[0], whole[3])
    for cut in range(7):
        parts = [getattr(STREAM, draw)(part, (2, 3), F64) for part in (index[:cut], index[cut:])]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.tensor([5, 1, 0, 2, 4, 3])
    assert torch.equal(getattr(STREAM, draw)(index[order], (2, 3), F64), whole[order])


def test_the_shape_only_folds_the_same_numbers():
    assert torch.equal(uniform(shape=(4, 6)).flatten(1), uniform(shape=(24,)))
    assert torch.equal(uniform(shape=(24,)), uniform(shape=(30,))[:, :24])
    assert uniform(shape=()).shape == (200,)


def test_every_part_of_a_name_counts():
    names = [
        (0, "a", 0),
        (1, "a", 0),
        (0, "b", 0),
        (0, "a", 1),
        (0, "a"),
        ("a", 0, 0),
        (0, "a", 0, 0),
        (0, "a", 10),
    ]
    streams = [RandomKey.of(*name) for name in names]
    streams += [streams[0].fold_in(), streams[0].fold_in(0), streams[0].fold_in("0", 0)]
    drawn = [uniform(key, 5) for key in streams]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))
    assert RandomKey.of(0, "a", 0) == streams[0] and torch.equal(
        uniform(RandomKey.of(0, "a", 0), 5), drawn[0]
    )


def test_numbers_never_change():
    """Published runs are named by their seed: a new mixer would be a new method."""
    u = RandomKey.of(0, "attack start", 0).uniform(torch.tensor([0, 1]), (2,), F64)
    assert (u * 2**24).long().tolist() == [[13258329, 1350768], [1462669, 1551141]]
    assert RandomKey.of(0, "order", 0).permutation(5).tolist() == [4, 0, 2, 1, 3]


def test_normal_numbers_are_normal():
    z = STREAM.normal(torch.arange(2000), (25,), F64).flatten()
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    n = len(z)
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    assert torch.equal(
        STREAM.normal(torch.arange(9), (3,), torch.float32), STREAM.normal(torch.arange(9), (3,), F64).float()
    )


@pytest.mark.parametrize("high", [1, 2, 7, 256])
def test_integers_are_equally_likely(high):
    drawn = STREAM.integers(torch.arange(4000), (5,), high)
    assert drawn.dtype == torch.int64 and drawn.min() == 0 and drawn.max() == high - 1
    counts = torch.bincount(drawn.flatten(), minlength=high)
    assert high == 1 or stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_a_permutation_is_one_and_follows_from_the_name():
    order = STREAM.permutation(1000)
    assert order.sort().values.tolist() == list(range(1000))
    assert torch.equal(order, RandomKey.of(0, "test", 7).permutation(1000))
    assert not torch.equal(order, RandomKey.of(0, "test", 8).permutation(1000))
    torch.manual_seed(0)
    before = torch.rand(3)
    torch.manual_seed(0)
    STREAM.permutation(10)
    assert torch.equal(before, torch.rand(3))


def test_permutations_are_equally_likely():
    seen = [tuple(RandomKey.of(n, "order").permutation(3).tolist()) for n in range(1200)]
    counts = [seen.count(order) for order in itertools.permutations(range(3))]
    assert stats.chisquare(counts).pvalue > 1e-3
