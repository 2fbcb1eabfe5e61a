"""Layers by patterns of their names: frozen, or with a rate of their own."""

import pytest
import torch
from torch import nn

from lasat_ray.config.units import parse_lr_factor
from lasat_ray.errors import UsageError
from lasat_ray.models import build_classifier
from lasat_ray.models.patterns import freeze, lr_factors, matching

SHAPE = (3, 16, 16)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build_classifier("resnet18-4", num_classes=4, image_shape=SHAPE)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("conv1", 1), ("conv1.*", 1), ("layer1", 12), ("layer1.*", 12), ("layer[12]", 27), ("linear.bias", 1)],
)
def test_a_layer_is_named_with_or_without_what_lies_below(net, pattern, count):
    assert len(matching(net, pattern, option="--x")) == count


def test_a_pattern_that_fits_nothing_names_the_layers(net):
    with pytest.raises(UsageError, match=r"--x: 'head' fits no weight of the net; its layers are conv1, bn1"):
        matching(net, "head", option="--x")
    with pytest.raises(UsageError, match=r"--x: \* leaves nothing to train"):
        freeze(net, ["*"], option="--x")


def test_frozen_layers_keep_weights_and_statistics_and_the_others_learn(net):
    freeze(net, ["conv1", "bn1", "layer1"], option="--x")
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    net.eval()
    net.train()
    net(torch.rand(8, *SHAPE)).logsumexp(1).sum().backward()
    optimizer.step()
    held = ("conv1.", "bn1.", "layer1.")
    for name, value in net.backbone.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(held), name
    inner = dict(net.backbone.named_modules())
    assert not inner["bn1"].training and not inner["layer1.0.bn1"].training and inner["layer2.0.bn1"].training


def test_a_norm_that_still_learns_keeps_taking_statistics(net):
    freeze(net, ["bn1.weight"], option="--x")
    assert dict(net.backbone.named_modules())["bn1"].training


def test_the_last_rule_that_fits_holds(net):
    found = lr_factors(net, ["*=0.5", "layer1=0.1", "linear=10"], option="--x")
    named = dict(net.backbone.named_parameters())
    assert len(found) == len(named)
    for name, parameter in named.items():
        expected = 0.1 if name.startswith("layer1") else 10.0 if name.startswith("linear") else 0.5
        assert found[id(parameter)] == expected


@pytest.mark.parametrize("text", ["layer1", "=0.1", "a=x", "a=0", "a=-1", "a=inf", "a=nan", ""])
def test_what_is_no_rule(text):
    with pytest.raises(ValueError, match=r"is no PATTERN=FACTOR"):
        parse_lr_factor(text)
    assert parse_lr_factor("a=b=0.5") == ("a=b", 0.5)


def test_modules_of_others_are_named_by_their_own_names():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Conv2d(3, 2, 3), nn.Linear(2, 4)

        def forward(self, x):
            return self.fc(self.body(x).mean((2, 3)))

    from lasat_ray.models.classifier import Classifier, channel_values

    net = Classifier(
        Own(), precision="fp32", mean=channel_values("mean", 0.0, 3), std=channel_values("std", 1.0, 3)
    )
    freeze(net, ["body"], option="--x")
    assert [name for name, p in net.named_parameters() if p.requires_grad] == [
        "backbone.fc.weight",
        "backbone.fc.bias",
    ]
