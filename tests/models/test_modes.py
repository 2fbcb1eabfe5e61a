"""A frozen net is as it was afterwards; the optimizer's and the workers' views of a net are complete."""

import copy

import pytest
import torch
from torch import nn

from lasat_ray.models import (
    Classifier,
    batch_norm_buffers,
    build_classifier,
    frozen_eval,
    norm_and_bias_parameters,
    num_parameters,
    parameter_groups,
)
from tests.support.helpers import make_game, small_config


@pytest.fixture
def mixed_net():
    """A net in mixed modes with one parameter frozen: the state that has to come back exactly."""
    torch.manual_seed(0)
    net = build_classifier("small_cnn_bn", num_classes=3, image_shape=(1, 8, 8)).train()
    net.backbone.convs[1].eval()
    net.backbone.fc.bias.requires_grad_(False)
    return net


def flags(net):
    return [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]


def test_frozen_eval_inside(mixed_net):
    stats = [b.clone() for b in batch_norm_buffers(mixed_net)]
    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    with frozen_eval(mixed_net) as net:
        assert net is mixed_net
        assert flags(net) == ([False] * len(list(net.modules())), [False] * len(list(net.parameters())))
        net(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(p.grad is None for p in mixed_net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(stats, batch_norm_buffers(mixed_net), strict=True))


def test_frozen_eval_restores_exactly(mixed_net):
    before = flags(mixed_net)
    with frozen_eval(mixed_net):
        pass
    assert flags(mixed_net) == before


def test_frozen_eval_restores_after_an_exception(mixed_net):
    before = flags(mixed_net)
    with pytest.raises(KeyError), frozen_eval(mixed_net):
        raise KeyError
    assert flags(mixed_net) == before


def test_frozen_eval_nests(mixed_net):
    before = flags(mixed_net)
    with frozen_eval(mixed_net):
        with frozen_eval(mixed_net):
            pass
        assert not any(flags(mixed_net)[0] + flags(mixed_net)[1])
    assert flags(mixed_net) == before


def test_batch_norm_buffers_are_the_nets_own_and_floating(mixed_net):
    buffers = batch_norm_buffers(mixed_net)
    assert [tuple(b.shape) for b in buffers] == [(32,), (32,), (64,), (64,), (64,), (64,)]
    assert all(b.is_floating_point() for b in buffers)
    buffers[0].fill_(7.0)
    assert (mixed_net.state_dict()["backbone.convs.1.running_mean"] == 7.0).all()


def test_batch_norm_buffers_skip_layers_without_statistics():
    net = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.GroupNorm(1, 2))
    assert batch_norm_buffers(net) == []


def test_one_group_in_the_nets_order(mixed_net):
    (group,) = parameter_groups(mixed_net, 5e-4, decay_norms=True)
    assert group["weight_decay"] == 5e-4
    assert [id(p) for p in group["params"]] == [id(p) for p in mixed_net.parameters()]


def test_two_groups_split_by_kind(mixed_net):
    weights, bare = parameter_groups(mixed_net, 5e-4, decay_norms=False)
    assert (weights["weight_decay"], bare["weight_decay"]) == (5e-4, 0.0)
    assert all(p.ndim >= 2 for p in weights["params"]) and len(weights["params"]) == 5
    assert len(bare["params"]) == 3 * 2 + 2  # three BatchNorms, two linear biases
    numbers = sum(p.numel() for group in (weights, bare) for p in group["params"])
    assert numbers == num_parameters(mixed_net)


def test_norms_of_any_rank_are_found():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm([2, 6, 6]))
    shapes = {tuple(p.shape) for p in norm_and_bias_parameters(net)}
    assert shapes == {(2,), (2, 6, 6)}


def test_empty_groups_are_left_out():
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 1e-4, decay_norms=False)) == 1


def frozen_norm(*, num_classes, image_shape):
    norm = nn.BatchNorm2d(image_shape[0]).eval().requires_grad_(False)
    norm.running_mean += 0.25
    size = image_shape[0] * image_shape[1] * image_shape[2]
    return nn.Sequential(norm, nn.Flatten(), nn.Dropout(0.1), nn.Linear(size, num_classes))


def test_a_batch_norm_that_its_maker_froze_stays_frozen_in_training():
    config = small_config(model="tests.models.test_modes:frozen_norm", batch_size=16)
    game = make_game(config)
    before = {name: value.clone() for name, value in game.net.state_dict().items()}
    for _ in range(2):
        game.play(torch.zeros(16, 3, dtype=torch.int64))
    after = game.net.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"backbone.3.weight", "backbone.3.bias"}
    norm, dropout = game.net.train().backbone[0], game.net.backbone[2]
    assert not norm.training and dropout.training and game.net.training
    assert not copy.deepcopy(game.net).eval().train().backbone[0].training


def test_a_net_that_comes_in_evaluation_mode_as_a_whole_is_trained():
    net = build_classifier("tiny_cnn_bn", num_classes=4, image_shape=(1, 8, 8))
    pixels = {"mean": torch.zeros(1, 1, 1), "std": torch.ones(1, 1, 1)}
    whole = Classifier(net.backbone.eval(), precision="fp32", **pixels)
    assert all(part.training for part in whole.train().modules())
