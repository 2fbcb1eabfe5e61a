"""Nets from torchvision and from a user's module: they work, or one line says why not."""

import sys

import pytest
import torch
from torch import nn

from lasat_ray.errors import UsageError, UserError
from lasat_ray.models import build_classifier, build_features

HERE = "tests.support.outside_nets"
SHAPE = (3, 8, 8)


def build(name, shape=SHAPE, **options):
    return build_classifier(name, num_classes=4, image_shape=shape, **options)


def test_torchvision_takes_grey_images_as_three_equal_channels():
    net = build("torchvision:mobilenet_v3_small", (1, 32, 32)).eval()
    x = torch.rand(2, 1, 32, 32)
    assert net(x).shape == (2, 4)
    torch.testing.assert_close(net(x), net.backbone.net(x.repeat(1, 3, 1, 1)))


def test_torchvision_takes_colour_images_as_they_are():
    net = build("torchvision:squeezenet1_1", (3, 32, 32))
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 4)
    assert "backbone.classifier.1.weight" in net.state_dict()


def test_module_function():
    net = build(f"{HERE}:good", precision="fp64").eval()
    assert net(torch.rand(2, *SHAPE)).shape == (2, 4)
    assert net(torch.rand(2, *SHAPE)).dtype == torch.float64


def test_features_of_an_outside_net_are_its_outputs():
    net, num_features = build_features(f"{HERE}:good", image_shape=SHAPE)
    assert num_features == 128
    assert net(torch.rand(2, *SHAPE)).shape == (2, 128)


def test_the_check_leaves_no_trace():
    torch.manual_seed(5)
    net = build(f"{HERE}:good")
    drawn = torch.rand(3)
    assert (net.backbone.norm.running_mean == 0).all() and net.backbone.norm.num_batches_tracked == 0
    assert net.training
    torch.manual_seed(5)
    nn.Linear(3 * 8 * 8, 4)  # what building draws
    assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("torchvision:resnet19", 2, "model: torchvision has no classifier 'resnet19'; try one of: resnet18"),
        ("torchvision:zzz", 2, "model: torchvision has no classifier 'zzz'; try one of: resnet18, "),
        (
            "no_such_module:net",
            2,
            "model: cannot import 'no_such_module' of 'no_such_module:net' (no module named "
            "'no_such_module'); check the spelling, or add its folder to PYTHONPATH",
        ),
        (
            "tests.support.outside_broken_import:net",
            1,
            "model: importing 'tests.support.outside_broken_import' of "
            "'tests.support.outside_broken_import:net' raised RuntimeError: a driver is missing",
        ),
        (
            f"{HERE}:nothing",
            2,
            f"model: module '{HERE}' has no function 'nothing'; "
            "define it as function(*, num_classes, image_shape) -> nn.Module",
        ),
        (f"{HERE}:NUMBER", 2, f"model: module '{HERE}' has no function 'NUMBER'; "),
        (f"{HERE}:no_net", 2, f"model: '{HERE}:no_net' returned a str; return an nn.Module"),
        (
            f"{HERE}:broken",
            1,
            f"model: '{HERE}:broken' called with num_classes=4, image_shape=(3, 8, 8) raised "
            "KeyError: 'first line\\nsecond line'; correct the function",
        ),
        (
            f"{HERE}:one_too_many",
            1,
            f"model: '{HERE}:one_too_many' maps a batch of two images to shape (2, 5); "
            "it has to return logits (2, 4)",
        ),
        (f"{HERE}:other_size", 1, f"model: '{HERE}:other_size' fails on two images of shape (3, 8, 8): "),
        (f"{HERE}:auxiliary_head", 1, "choose a net that takes this size and returns logits (2, 4)"),
        ("torchvision:squeezenet1_1", 1, "model: 'torchvision:squeezenet1_1' fails on two images of shape "),
    ],
)
def test_one_line_says_what_is_wrong(name, status, message):
    sys.modules.pop("tests.support.outside_broken_import", None)
    with pytest.raises(UserError) as caught:
        build(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.status == status


def test_torchvision_refuses_other_channel_counts():
    with pytest.raises(UsageError) as caught:
        build("torchvision:resnet18", (2, 32, 32))
    assert str(caught.value) == (
        "model: 'torchvision:resnet18' takes 3 channels and the images have 2; "
        "use a built-in net, timm:NAME or module:function"
    )
