"""The batches of a run: the same for any number of workers, in any order, after any restart."""

import pytest
import torch

from lasat_ray.config import DataConfig
from lasat_ray.data import Batches, Images, ordered_batches
from lasat_ray.errors import UsageError
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import Batch

from .conftest import make_images

VARIED = DataConfig(crop_padding=2, flip=True, cutout=2)


def make(images, rank=0, size=1, **changed):
    settings = {"batch_size": 10, "seed": 3, "device": "cpu", "dtype": torch.float32, "augment": VARIED}
    return Batches(images, group=ProcessGroup(rank, size), **{**settings, **changed})


def same(a, b):
    fields = ("x", "y", "index")
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in fields) and a.global_size == b.global_size


@pytest.mark.parametrize("extra", [{}, {"extra": make_images(7, seed=9), "extra_fraction": 0.3}])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_shares_of_all_workers_are_the_batch_of_one(images, size, extra):
    one, shared = make(images, **extra), [make(images, rank, size, **extra) for rank in range(size)]
    for round in range(13):
        parts = [worker.batch(round) for worker in shared]
        whole = one.batch(round)
        for field in ("x", "y", "index"):
            assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))
        assert {part.global_size for part in parts} == {10} == {whole.global_size}


def test_without_augmentation_a_batch_is_the_images_of_its_index(images):
    batch = make(images, augment=None, dtype=torch.float64).batch(4)
    assert torch.equal(batch.x, images.x[batch.index].double() / 255)
    assert torch.equal(batch.y, images.y[batch.index])
    assert batch.x.min() >= 0 and batch.x.max() <= 1


def test_eight_steps_of_a_pixel_are_exactly_8_255():
    images = Images(
        torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1), torch.zeros(256, dtype=torch.int64)
    )
    batch = make(images, batch_size=256, augment=None, dtype=torch.float64).batch(0)
    assert batch.x.flatten().sort().values.tolist() == [n / 255 for n in range(256)]


def test_an_epoch_meets_an_image_at_most_once_and_the_next_in_another_order(images):
    batches = make(images)
    assert batches.rounds_per_epoch == 5
    first, second = (torch.cat([batches.batch(e * 5 + r).index for r in range(5)]) for e in range(2))
    assert len(first.unique()) == 50 == len(second.unique())
    assert not torch.equal(first, second)


def test_all_images_come_up_when_the_batch_divides_their_number():
    batches = make(make_images(30))
    index = torch.cat([batches.batch(round).index for round in range(3)])
    assert index.sort().values.tolist() == list(range(30))


@pytest.mark.parametrize("extra", [{}, {"extra": make_images(4, seed=9), "extra_fraction": 0.7}])
def test_random_access_is_sequential_access(images, extra):
    batches = make(images, **extra)
    forward = [batches.batch(round) for round in range(60)]
    assert all(same(batches.batch(round), forward[round]) for round in reversed(range(60)))
    assert all(same(make(images, **extra).batch(round), forward[round]) for round in (0, 17, 59))


def test_the_seed_decides(images):
    assert same(make(images).batch(2), make(images).batch(2))
    assert not torch.equal(make(images).batch(2).index, make(images, seed=4).batch(2).index)


def test_an_image_is_varied_differently_in_another_round(images):
    batches = make(images, batch_size=53)
    x = [batches.batch(round).x[batches.batch(round).index.argsort()] for round in range(2)]
    assert not torch.equal(*x)


def test_extra_images_fill_their_share_at_the_end_in_their_own_order(images):
    extra = make_images(11, num_classes=3, seed=9)
    batches = make(images, augment=None, extra=extra, extra_fraction=0.4)
    assert batches.rounds_per_epoch == 53 // 6
    seen = []
    for round in range(22):  # 88 places: 8 epochs of the extra images
        batch = batches.batch(round)
        assert (batch.index[:6] < 53).all() and (batch.index[6:] >= 53).all()
        rows = batch.index[6:] - 53
        assert torch.equal(batch.x[6:], extra.x[rows] / 255)
        assert torch.equal(batch.y[6:], extra.y[rows])
        seen.append(rows)
    for epoch in torch.cat(seen).split(11):
        assert epoch.sort().values.tolist() == list(range(11))


def test_the_share_of_extra_images_is_rounded(images):
    extra = make_images(5)
    for fraction, count in ((0.04, 0), (0.26, 3), (0.5, 5), (0.9, 9)):
        if count:
            index = make(images, extra=extra, extra_fraction=fraction).batch(0).index
            assert int((index >= 53).sum()) == count


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            {"batch_size": 54},
            "--batch-size: 54 takes 54 training images a round but there are only 53; lower it to 53 or less",
        ),
        ({"batch_size": 0}, "--batch-size: 0 images cannot be shared by 1 workers; raise it"),
        ({"batch_size": 2, "size": 3}, "--batch-size: 2 images cannot be shared by 3 workers; raise it"),
        (
            {"extra_fraction": 0.5},
            "--data.extra-fraction: 0.5 needs extra images; set --data.extra to npz:PATH",
        ),
        (
            {"extra_fraction": 1.0},
            "--data.extra-fraction: 1.0 is not a share; choose 0 <= fraction < 1",
        ),
        (
            {"extra": make_images(5)},
            "--data.extra-fraction: 0.0 of --batch-size 10 takes none of 5 extra images; "
            "raise it or drop --data.extra",
        ),
        (
            {"extra": make_images(5), "extra_fraction": 0.99},
            "--data.extra-fraction: leaves no training image in --batch-size 10; lower it",
        ),
        ({"augment": DataConfig(cutout=-1)}, "--data.cutout: -1 is negative; 0 switches it off"),
    ],
)
def test_numbers_that_do_not_fit_together(images, changed, text):
    with pytest.raises(UsageError) as caught:
        make(images, **changed)
    assert str(caught.value) == text


def test_ordered_batches_hold_every_image_once_in_order(images):
    batches = list(ordered_batches(images, batch_size=20, device="cpu", dtype=torch.float32))
    assert [batch.global_size for batch in batches] == [20, 20, 13] == [len(batch.y) for batch in batches]
    assert torch.equal(torch.cat([batch.index for batch in batches]), torch.arange(53))
    assert torch.equal(torch.cat([batch.x for batch in batches]), images.x / 255)
    assert torch.equal(torch.cat([batch.y for batch in batches]), images.y)


def test_ordered_batches_of_some_rows_keep_the_rows_of_the_set(images):
    rows = torch.tensor([50, 3, 3, 7])
    batches = list(ordered_batches(images, batch_size=3, device="cpu", dtype=torch.float32, rows=rows))
    assert torch.equal(torch.cat([batch.index for batch in batches]), rows)
    assert torch.equal(torch.cat([batch.x for batch in batches]), images.x[rows] / 255)
    assert not list(ordered_batches(images, batch_size=3, device="cpu", dtype=torch.float32, rows=rows[:0]))


def test_ordered_batches_need_a_size(images):
    with pytest.raises(UsageError, match=r"^--evaluation.batch-size: 0 is not a size; give 1 or more$"):
        next(ordered_batches(images, batch_size=0, device="cpu", dtype=torch.float32))


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("fits", [True, False])
def test_a_cuda_batch_is_the_cpu_batch_wherever_the_images_live(images, monkeypatch, fits):
    monkeypatch.setattr("lasat_ray.data.feed._fits", lambda x, device: fits)
    extra = {"extra": make_images(7, seed=9), "extra_fraction": 0.3, "dtype": torch.float64}
    host, device = make(images, **extra), make(images, device="cuda", **extra)
    for round in range(20):
        batch = device.batch(round)
        assert {batch.x.device.type, batch.y.device.type, batch.index.device.type} == {"cuda"}
        on_host = Batch(x=batch.x.cpu(), y=batch.y.cpu(), index=batch.index.cpu(), global_size=10)
        assert same(on_host, host.batch(round))


@needs_cuda
def test_images_live_on_the_device_when_they_take_less_than_half_of_its_free_memory(images, monkeypatch):
    for free, home in ((2 * images.x.nbytes + 1, "cuda"), (2 * images.x.nbytes, "cpu")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert make(images, device="cuda")._store._x.device.type == home
