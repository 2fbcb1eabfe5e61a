"""Sizes, names and numbers of the nets against what is published for them."""

import pytest
import torch

from lasat_ray.models import build_classifier, build_features, num_parameters

SMALL = ["small_cnn", "small_cnn_bn", "resnet18-4", "resnet34-4", "resnet50-4", "preact_resnet18-4"]
SMALL += ["wrn-10-1", "wrn-16-1", "wrn-10-2-silu"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("resnet50", 23_520_842),
        ("preact_resnet18", 11_171_146),
        ("wrn-28-10", 36_479_194),
        ("wrn-34-10", 46_160_474),
        ("wrn-28-10-silu", 36_479_194),
        ("wrn-70-16", 266_796_506),
    ],
)
def test_parameter_count_is_the_published_one(name, expected):
    with torch.device("meta"):
        assert num_parameters(build_classifier(name, num_classes=10, image_shape=(3, 32, 32))) == expected


@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 32, 32), (3, 64, 64)])
@pytest.mark.parametrize("name", SMALL)
def test_logits_and_features_shapes(name, image_shape):
    x = torch.rand(2, *image_shape)
    net = build_classifier(name, num_classes=5, image_shape=image_shape)
    features, num_features = build_features(name, image_shape=image_shape)
    assert net(x).shape == (2, 5)
    assert features(x).shape == (2, num_features)
    assert net.backbone.features(x).shape == (2, num_features)
    assert net.backbone.head.weight.shape == (5, num_features)
    assert num_parameters(net) - num_parameters(features) == 5 * (num_features + 1)
