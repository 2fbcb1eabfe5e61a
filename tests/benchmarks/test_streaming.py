"""The streaming benchmark: its shards can be streamed, by every path that it times."""

import json
from pathlib import Path

from benchmarks.speed.made_shards import first_shard, generate
from benchmarks.speed.streaming import Options, configs, make_game, ratios
from lasat_ray.data import load_dataset, thread_prefetch


def test_generated_shards_are_a_stream(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    generate(shards, 30, side=32, per_file=20, per_group=10)
    dataset = load_dataset(f"stream:{shards}", root="~", max_train=None, max_test=None, seed=0)
    assert len(dataset.train) == 30 and dataset.image_shape == (3, 32, 32)
    assert len(dataset.load_test()) == 100
    paths = configs(Options(batch_size=4, window=20), shards, first_shard(shards))
    for name, (config, _) in paths.items():
        env, _ = make_game(config, thread_prefetch)
        index = env.batch.index
        assert len(index) == 4 and (index < 20).sum() >= 2 - ("stream," in name) * 2
        assert env.batches.rounds_per_epoch == {"memory": 5, "memory and extra stream": 10}.get(name, 7)


def test_ratios_are_those_of_throughput() -> None:
    found = ratios({"1": {"memory": [1.0, 1.0, 3.0], "stream": [2.0, 1.0, 4.0]}})
    assert found == {"1": {"stream": 0.75}}


def test_the_committed_record_keeps_every_stream_within_a_tenth_of_memory() -> None:
    record = json.loads((Path(__file__).parents[2] / "benchmarks/records/streaming_cpu.json").read_text())
    assert ratios(record["seconds"]) == record["throughput_over_memory"]
    for paths in record["throughput_over_memory"].values():
        assert len(paths) == 3 and min(paths.values()) >= 0.9
    cap = record["settings"]["cap_mib"] << 20
    assert record["decoded_bytes"] > 5 * cap
    assert "does not fit into memory" in record["loading whole under the cap"]
    for name in ("stream, thread", "memory and extra stream"):
        assert record["peak_resident_bytes"][name]["this process"] < cap
