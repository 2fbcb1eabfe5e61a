"""Which attacks move between workers."""

import numpy as np
import pytest

from lasat_ray.attacks.balance import plan_loans


def loads(images_WS, loans):
    """Steps of each worker after the loans, which must be of images it has."""
    own, load = images_WS.copy(), images_WS @ np.arange(images_WS.shape[1])
    for lender, borrower, steps in loans:
        own[lender, steps] -= 1
        load[lender] -= steps
        load[borrower] += steps
    assert (own >= 0).all()
    return load


@pytest.mark.parametrize(("workers", "images"), [(2, 32), (7, 5), (16, 64), (64, 8)])
def test_nobody_waits_longer_than_part_of_one_attack(workers, images):
    drawn = np.random.default_rng(workers).integers(3, 15, (workers, images))
    images_WS = np.stack([np.bincount(row, minlength=15) for row in drawn])
    before, after = drawn.sum(1), loads(images_WS, plan_loans(images_WS))
    assert after.sum() == before.sum() and after.max() < before.max()
    assert after.max() - after.mean() <= 4 < before.max() - before.mean()


def test_where_no_move_helps_none_is_made():
    alone = np.eye(15, dtype=np.int64)[[3, 14, 9]]  # one image each
    assert plan_loans(alone) == []
    assert plan_loans(np.zeros((3, 5), dtype=np.int64)) == []
    even = np.stack([np.bincount([5, 5, 5])] * 4)
    assert plan_loans(even) == []
