"""CutMix: the box, the shares, and that no worker's share of the batch changes what an image becomes."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lasat_ray.attacks import objective_of
from lasat_ray.config import DataConfig
from lasat_ray.data import Batches
from lasat_ray.data.cutmix import boxes, cutmix, partners
from lasat_ray.methods import METHODS
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.types import Logits
from lasat_ray.update.reward import reward_terms
from lasat_ray.update.task import Task
from tests.support.helpers import attacked, make_images, small_config, strategy_of

MIXED = DataConfig(crop_padding=1, cutmix=True)


def batches(group=None, augment=MIXED):
    kept = {"batch_size": 8, "seed": 0, "device": "cpu", "dtype": torch.float64}
    return Batches(make_images(40), group=group or ProcessGroup(), augment=augment, **kept)


def test_a_share_is_the_area_that_stayed():
    x, other = torch.zeros(500, 1, 32, 24), torch.ones(500, 1, 32, 24)
    inside = boxes(torch.arange(500), 32, 24, RandomKey.of(0, "t"))
    mixed, share = cutmix(x, other, inside)
    torch.testing.assert_close(mixed.mean((1, 2, 3)).double(), 1 - share, atol=1e-6, rtol=0)
    assert 0 <= share.min() < 0.2 and share.max() == 1 and 0.5 < share.mean() < 0.85
    rows, columns = inside.any(2), inside.any(1)
    assert torch.equal(inside, rows[:, :, None] & columns[:, None, :])
    assert partners(torch.arange(500), 40, RandomKey.of(0, "t")).unique().numel() > 35


def test_workers_share_the_batch_that_one_would_mix():
    whole = batches().batch(3)
    parts = [batches(ProcessGroup(rank, 2)).batch(3) for rank in range(2)]
    for name in ("x", "y", "index", "y_other", "share"):
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name))
    assert not torch.equal(batches().batch(4).share, whole.share)
    plain = batches(augment=dataclasses.replace(MIXED, cutmix=False)).batch(3)
    assert plain.share is None and torch.equal(plain.index, whole.index) and torch.equal(plain.y, whole.y)
    untouched = whole.share == 1
    assert torch.equal(plain.x[untouched], whole.x[untouched]) and not torch.equal(plain.x, whole.x)


@pytest.mark.parametrize("name", ["trades", "score"])
def test_a_mixed_image_is_trained_by_the_shares_of_its_labels(name):
    batch = batches().batch(0)
    g = torch.Generator().manual_seed(0)
    logits = Logits(**dict(zip(("adv", "clean"), torch.randn(2, 8, 4, generator=g).double(), strict=True)))
    ones = torch.ones(8, dtype=torch.float64)
    settings = small_config().loss

    def loss_of(**changes):
        changed = dataclasses.replace(batch, **changes)
        strategy = strategy_of(ones, ones.long(), ones)
        task = Task(method=METHODS[name], attacked=attacked(changed, batch.x, strategy))
        return task.loss(logits, settings)

    own, other = (loss_of(y=y, y_other=None, share=None) for y in (batch.y, batch.y_other))
    torch.testing.assert_close(loss_of(), batch.share * own + (1 - batch.share) * other)


def test_attack_and_reward_read_mixed_labels_by_their_shares():
    """Gradient and losses are linear in the label, so both equal the shares' mean of single labels."""
    batch, net = batches().batch(0), nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double()
    x = batch.x.clone().requires_grad_(True)
    ones = torch.ones(8, dtype=torch.float64)
    mixed = objective_of("ce", net, batch)(net(x), torch.arange(8))
    single = [F.cross_entropy(net(x), y, reduction="none") for y in (batch.y, batch.y_other)]
    expected = batch.share * single[0] + (1 - batch.share) * single[1]
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(v.sum(), x, retain_graph=True) for v in (mixed, expected))
    )
    terms = reward_terms(net, batch, batch.x, ones)
    torch.testing.assert_close(terms.l2, -expected.detach())
    assert torch.equal(terms.l2, terms.l3)
    rows = torch.tensor([5, 2])
    torch.testing.assert_close(objective_of("ce", net, batch)(net(batch.x)[rows], rows), mixed[rows])
