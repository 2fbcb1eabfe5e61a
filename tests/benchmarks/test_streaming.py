"""The streaming benchmark: its shards can be streamed."""

from benchmarks.streaming import generate
from lasat_ray.data import load_dataset


def test_generated_shards_are_a_stream(tmp_path):
    generate(tmp_path, 30)
    dataset = load_dataset(f"stream:{tmp_path}", root="~", max_train=None, max_test=None, seed=0)
    assert len(dataset.train) == 30 and dataset.image_shape == (3, 32, 32)
    assert len(dataset.load_test()) == 100
