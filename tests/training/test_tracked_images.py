"""The probe: the same few images all through a run, and a look that disturbs nothing."""

import json

import pytest
import torch

from lasat_ray.cluster.local import train_here
from lasat_ray.rng import RandomKey
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.tracked_images import choose_tracked, load_tracked, strategy_shares
from tests.support.helpers import make_game, make_images, seeded_learner, small_config


def test_the_probe_is_named_by_the_seed_and_spans_the_classes():
    images = make_images(60, classes=10)
    probe = choose_tracked(images, seed=3)
    assert len(set(probe.images.y.tolist())) == 8
    assert torch.equal(probe.images.x, images.x[probe.rows])
    assert torch.equal(probe.rows, choose_tracked(images, seed=3).rows)
    assert not torch.equal(probe.rows, choose_tracked(images, seed=4).rows)


@pytest.mark.parametrize(("count", "classes"), [(60, 3), (5, 2)])
def test_few_classes_or_images_still_make_a_probe(count, classes):
    rows = choose_tracked(make_images(count, classes=classes), seed=0).rows
    assert len(rows) == len(set(rows.tolist())) == min(8, count)


def test_shares_of_a_strategy_net_are_its_probabilities():
    config = small_config()
    env = make_game(config)
    learner = seeded_learner(config, env.space)
    for head in learner.net.heads:
        head.bias.data.copy_(torch.arange(len(head.bias)).float())
    shares = strategy_shares(learner, env.space, env.batch.x, RandomKey.of("probe"))
    for share, size in zip(shares, env.space.sizes, strict=True):
        assert torch.allclose(share, torch.arange(size).float().softmax(0).expand_as(share))
    assert learner.net.training


@pytest.mark.parametrize("strategy", ["random", "fixed", "curriculum"])
def test_shares_of_other_learners_are_counted_and_leave_them_alone(strategy):
    config = small_config(strategy=strategy)
    env = make_game(config)
    learner = seeded_learner(config, env.space)
    before = json.dumps(learner.state_dict())
    shares = strategy_shares(learner, env.space, env.batch.x, RandomKey.of("probe"))
    assert json.dumps(learner.state_dict()) == before
    for share in shares:
        assert torch.allclose(share.sum(1), torch.ones(len(share)))
        assert bool((share.max(1).values < 1).all()) == (strategy == "random")


def test_a_run_keeps_the_images_once_and_a_record_an_epoch(tmp_path):
    config = small_config()
    folder = RunFolder.create(tmp_path / "run", config)
    train_here(config, folder, device="cpu", stop_after=4)
    train_here(config, folder, device="cpu")
    images, class_names = load_tracked(folder)
    assert len(images) == 8 and class_names == tuple("0123456789")
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    probes = [line for line in lines if line["kind"] == "probe"]
    assert [probe["epoch"] for probe in probes] == [1, 2]
    for probe in probes:
        assert probe["y"] == images.y.tolist()
        for name, values in config.attack.grid.items():
            assert [len(row) for row in probe["share"][name]] == [len(values)] * 8
            assert all(abs(sum(row) - 1) < 1e-3 for row in probe["share"][name])
    assert load_tracked(RunFolder(tmp_path)) is None
