"""Images streamed from parquet shards: the same batches for any world and after any restart."""

import dataclasses
import pickle

import fsspec
import numpy as np
import pytest
import torch

from lasat_ray.cluster.local import train_here
from lasat_ray.config import DataConfig
from lasat_ray.data import Batches, Reading, load_extra, split_validation
from lasat_ray.data.prefetch import thread_prefetch
from lasat_ray.data.stream_order import StreamOrder
from lasat_ray.errors import UsageError
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.folder import RunFolder
from tests.support.ray_runs import tiny, weights

from .conftest import encode, error_of, load, make_images, pixels
from .test_batches import same
from .test_parquet import write

ROWS = (23, 17, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 training images in three files with row groups of 6, and four test images."""
    root, first = tmp_path_factory.mktemp("shards"), 0
    for n, count in enumerate(ROWS):
        rows = range(first, first + count)
        blobs, labels = [encode(pixels(row)) for row in rows], [row % 3 for row in rows]
        write(root / f"train-{n}.parquet", blobs, labels, row_group_size=6)
        first += count
    write(root / "test-0.parquet", [encode(pixels(n)) for n in range(4)], [0, 1, 2, 0])
    return root


def make(images, rank=0, size=1, *, window=24, lanes=3, prefetch=thread_prefetch, **changed):
    settings = {"batch_size": 7, "seed": 3, "device": "cpu", "dtype": torch.float32, "augment": DataConfig()}
    reading = Reading(window, lanes, prefetch)
    return Batches(images, group=ProcessGroup(rank, size), reading=reading, **{**settings, **changed})


def test_a_stream_has_what_the_same_files_have_in_memory(folder):
    stream, memory = load(f"stream:{folder}"), load(f"parquet:{folder}")
    assert (len(stream.train), stream.image_shape) == (60, (3, 6, 6))
    assert stream.class_names == memory.class_names == ("0", "1", "2")
    assert torch.equal(stream.load_test().x, memory.load_test().x)
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:40]
    taken = stream.train.take(rows)
    assert torch.equal(taken.x, memory.train.x[rows]) and torch.equal(taken.y, memory.train.y[rows])


@pytest.mark.parametrize("lanes", [1, 3, 50])
@pytest.mark.parametrize("window", [6, 24, 1000])
def test_a_batch_holds_the_images_of_its_index_each_at_most_once_an_epoch(folder, window, lanes):
    stream, memory = load(f"stream:{folder}").train, load(f"parquet:{folder}").train
    batches = make(stream, window=window, lanes=lanes, augment=None)
    assert batches.rounds_per_epoch == 8
    epochs = []
    for epoch in range(2):
        whole = [batches.batch(8 * epoch + round) for round in range(8)]
        for batch in whole:
            assert torch.equal(batch.x, memory.x[batch.index] / 255)
            assert torch.equal(batch.y, memory.y[batch.index])
        epochs.append(torch.cat([batch.index for batch in whole]))
        assert len(epochs[-1].unique()) == 56
    assert not torch.equal(*epochs)


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_all_workers_together_hold_the_batch_of_one(folder, size, extra):
    stream = load(f"stream:{folder}").train
    more = {"extra": load_extra(f"stream:{folder}", (3, 6, 6), 3), "extra_fraction": 0.5} if extra else {}
    one, shared = make(stream, **more), [make(stream, rank, size, **more) for rank in range(size)]
    for round in (0, 1, 7, 8, 15, 3):
        parts, whole = [worker.batch(round) for worker in shared], one.batch(round)
        for field in ("x", "y", "index"):
            assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))


def test_any_round_is_found_again_and_the_seed_decides(folder):
    stream = load(f"stream:{folder}").train
    forward = make(stream)
    kept = [forward.batch(round) for round in range(20)]
    for round in (19, 4, 5, 0):
        assert same(make(stream).batch(round), kept[round]) and same(forward.batch(round), kept[round])
    assert not torch.equal(make(stream, seed=4).batch(0).index, kept[0].index)


def test_each_worker_reads_the_row_groups_of_its_own_lanes():
    order = StreamOrder(torch.full((64,), 10), 16, 20, 4, ("order",))
    groups = [set((order.rows(0, 0, 4 * rank, 4 * rank + 4) // 10).flatten().tolist()) for rank in range(4)]
    # 20 rounds of 4 images are 8 groups of 10; a cut through a group makes it 9
    assert all(len(mine) <= 9 for mine in groups)
    assert not groups[0] & groups[2] and not groups[1] & groups[3]


def test_windows_are_read_in_turn_and_one_ahead(folder):
    read = []

    def spying(work, items):
        for item in items:
            read.append(item)
            yield work(item)

    batches = make(load(f"stream:{folder}").train, prefetch=spying)
    for round in range(9):
        batches.batch(round)
    assert read == [(0, 0), (0, 1), (0, 2), (1, 0)]
    batches.batch(16)
    assert read[4:] == [(2, 0)]


def test_the_thread_stays_one_result_ahead():
    begun, results = [], thread_prefetch(lambda n: begun.append(n) or n * n, iter(range(5)))
    assert next(results) == 0
    assert next(results) == 1 and max(begun) <= 2
    results.close()


def test_validation_images_leave_the_stream_and_repeat(folder):
    dataset, memory = load(f"stream:{folder}"), load(f"parquet:{folder}").train
    train, held = split_validation(dataset.train, 0.2, 5)
    again = split_validation(dataset.train, 0.2, 5)[1]
    assert (len(train), len(held)) == (48, 12) and torch.equal(held.x, again.x)
    left = train.take(torch.arange(48))
    whole = sorted(map(bytes, torch.cat([left.x, held.x]).flatten(1).numpy()))
    assert whole == sorted(map(bytes, memory.x.flatten(1).numpy()))
    rows, seen = train.sample(10, 1)
    assert len(seen) == 10 and torch.equal(seen.x, train.take(rows).x)


def test_a_stream_comes_from_any_url(folder):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket", recursive=True)
    try:
        remote = load("stream:memory://bucket")
        here = load(f"stream:{folder}")
        assert same(make(remote.train).batch(5), make(here.train).batch(5))
        assert torch.equal(remote.load_test().x, here.load_test().x)
    finally:
        memory.rm("/bucket", recursive=True)


def test_images_in_memory_and_streamed_extra_go_together(folder):
    images = make_images(20, shape=(3, 6, 6), num_classes=3)
    extra = load_extra(f"stream:{folder}", (3, 6, 6), 3)
    batch = make(images, extra=extra, extra_fraction=0.5, augment=None).batch(30)
    theirs = batch.index >= 20
    assert theirs.sum() == 4
    assert torch.equal(batch.x[theirs], extra.take(batch.index[theirs] - 20).x / 255)


def test_what_cannot_be_streamed_is_told_in_one_line(folder):
    stream = load(f"stream:{folder}").train
    assert "--data.stream-window: 5 images are less than the 6 of a row group of" in error_of(
        lambda: make(stream, window=5), UsageError
    )
    mixed = DataConfig(cutmix=True)
    assert "--data.cutmix" in error_of(lambda: make(stream, augment=mixed), UsageError)
    assert "no such folder; write stream:PATH" in error_of(lambda: load("stream:/no/such"))
    assert "nonsense://x: 'nonsense' is no protocol that is read; use one of: file" in error_of(
        lambda: load("stream:nonsense://x")
    )
    assert "image is" in error_of(lambda: load_extra(f"stream:{folder}", (3, 8, 8), 3))
    assert "is outside 0..1" in error_of(lambda: load_extra(f"stream:{folder}", (3, 6, 6), 2))


@pytest.mark.parametrize(
    ("blob", "label", "told"),
    [
        (b"hello", 0, "row 71: is no image that can be read"),
        (encode(np.zeros((5, 7, 3), dtype=np.uint8)), 0, "row 71: image is 7x5 but the first is"),
        (None, 0, "row 71: holds no image bytes"),
    ],
)
def test_a_row_that_is_damaged_is_named_when_its_window_comes(tmp_path, blob, label, told):
    blobs = [encode(pixels(row)) for row in range(72)]
    write(tmp_path / "train-0.parquet", [*blobs[:71], blob], [0] * 71 + [label], row_group_size=12)
    write(tmp_path / "test-0.parquet", blobs[:2], [0, 0])
    batches = make(load(f"stream:{tmp_path}").train, batch_size=8, window=1000)
    assert told in error_of(lambda: batches.batch(0))


def test_a_reader_is_plain_data_that_another_process_can_use(folder):
    reader = make(load(f"stream:{folder}").train)._feeds[0][0]._read
    for mine, theirs in zip(reader((1, 0)), pickle.loads(pickle.dumps(reader))((1, 0)), strict=True):
        assert torch.equal(mine, theirs)


def test_a_run_on_a_stream_stopped_in_a_window_ends_with_the_same_bits(tmp_path):
    labels = [row % 2 for row in range(80)]
    blobs = [encode(pixels(row, 8, 8, 1)) for row in range(80)]
    write(tmp_path / "set/train-0.parquet", blobs, labels, row_group_size=10)
    write(tmp_path / "set/test-0.parquet", blobs[:6], labels[:6])
    base = tiny(dataset=f"stream:{tmp_path}/set", model="mlp", strategy_model="mlp")
    data = dataclasses.replace(base.data, max_train=None, val_fraction=0.1, stream_window=20)
    config = dataclasses.replace(base, data=data, batch_size=9)
    runs = [RunFolder.create(tmp_path / name, config) for name in ("whole", "stopped")]
    whole = train_here(config, runs[0], device="cpu")
    for stop in (3, 11, None):
        ended = train_here(config, runs[1], device="cpu", stop_after=stop)
    assert whole["rounds"] == ended["rounds"] == 16 and whole["n_train"] == 72
    theirs = weights(runs[1])
    for net, state in weights(runs[0]).items():
        assert all(torch.equal(theirs[net][name], tensor) for name, tensor in state.items())
