"""Mixup: shares are Beta distributed, images and labels mix by them, whoever holds which part of a batch."""

import dataclasses

import pytest
import torch
from scipy import stats

from lasat_ray.config import DataConfig
from lasat_ray.data import Batches
from lasat_ray.data.mixup import mixup, shares
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from tests.support.helpers import make_images, small_config
from tests.support.method_runs import trainer_in

MIXED = DataConfig(crop_padding=1, mixup=0.4)


def batches(group=None, augment=MIXED):
    kept = {"batch_size": 8, "seed": 0, "device": "cpu", "dtype": torch.float64}
    return Batches(make_images(40), group=group or ProcessGroup(), augment=augment, **kept)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0])
def test_shares_are_beta_distributed(alpha):
    drawn = shares(torch.arange(4000), alpha, RandomKey.of(0, "t"))
    assert drawn.dtype == torch.float64 and drawn.min() >= 0 and drawn.max() <= 1
    # A share within rounding of an end says nothing about the distribution's steep ends.
    inside = drawn.clamp(1e-12, 1 - 1e-12).numpy()
    assert stats.kstest(inside, stats.beta(alpha, alpha).cdf).pvalue > 1e-3 or alpha < 0.1
    spread = 1 / (4 * (2 * alpha + 1))
    assert abs(drawn.mean() - 0.5) < 0.03 and abs(drawn.var() - spread) < 0.01


def test_an_image_is_its_share_and_the_rest_another():
    plain, mixed = (batches(augment=dataclasses.replace(MIXED, mixup=a)).batch(3) for a in (0.0, 0.4))
    assert plain.share is None and torch.equal(plain.index, mixed.index) and torch.equal(plain.y, mixed.y)
    rest = mixed.x - mixed.share[:, None, None, None] * plain.x
    left = (1 - mixed.share)[:, None, None, None]
    other = rest / left
    assert (other[mixed.share < 0.99] > -1e-9).all() and (other[mixed.share < 0.99] < 1 + 1e-9).all()
    whole = (other * 255)[mixed.share < 0.9]
    assert (whole - whole.round()).abs().max() < 1e-6  # a training image again
    ones, zeros = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    assert mixup(ones, zeros, torch.tensor([0.25, 1.0])).mean((1, 2, 3)).tolist() == [0.25, 1.0]


def test_workers_share_the_batch_that_one_would_mix():
    whole = batches().batch(3)
    parts = [batches(ProcessGroup(rank, 2)).batch(3) for rank in range(2)]
    for name in ("x", "y", "index", "y_other", "share"):
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name))
    assert not torch.equal(batches().batch(4).share, whole.share)


def test_a_run_trains_on_mixtures(tmp_path):
    summary = trainer_in(tmp_path / "run", small_config(data__mixup=0.4, method="ikl", epochs=2)).run()
    assert summary["rounds"] == 6
