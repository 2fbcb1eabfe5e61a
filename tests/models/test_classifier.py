"""Pixels to logits: normalization, precision, independence of images, and the errors of the builder."""

import copy

import pytest
import torch
from torch.nn import functional as F

from lasat_ray.errors import UsageError
from lasat_ray.models import MODELS, PATTERNS, build_classifier, build_features, find_builder

TINY = ["small_cnn", "small_cnn_bn", "resnet18-4", "resnet50-4", "preact_resnet18-4", "wrn-10-1-silu"]


def build(name="small_cnn", shape=(3, 8, 8), **options):
    torch.manual_seed(3)
    return build_classifier(name, num_classes=4, image_shape=shape, **options)


def initialise_statistics(net, x):
    """Give BatchNorm other statistics than 0 and 1, then evaluate."""
    net.train()(x)
    return net.eval()


def test_default_normalization_is_none():
    net, x = build(), torch.rand(2, 3, 8, 8)
    assert torch.equal(net(x), net.backbone(x))


def test_normalization_is_per_channel_inside_and_saved():
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    net, x = build(mean=mean, std=std), torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(net(x), net.backbone(by_hand))
    other = build()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.mean, net.mean) and torch.equal(other.std, net.std)


@pytest.mark.parametrize("mean", [0.5, (0.5,), (0.5, 0.5, 0.5)])
def test_one_value_serves_every_channel(mean):
    assert build(mean=mean).mean.tolist() == [[[0.5]]] * 3


def test_input_gradient_is_in_pixels():
    plain, halved = build(), build(std=2.0)
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(halved(x)[0, 0], x)
    scaled = (x / 2).detach().requires_grad_(True)
    (reference,) = torch.autograd.grad(plain(scaled)[0, 0], scaled)
    torch.testing.assert_close(grad, reference / 2)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.float32), ("fp64", torch.float64)]
)
@pytest.mark.parametrize("name", ["small_cnn", "resnet18-4"])
def test_logits_and_weights_dtype(name, precision, dtype):
    net = build(name, precision=precision)
    features, _ = build_features(name, image_shape=(3, 8, 8), precision=precision)
    for x in (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8).double()):
        assert net(x).dtype == features(x).dtype == dtype
    assert {p.dtype for p in net.parameters()} == {dtype}


def test_bf16_runs_the_backbone_in_bfloat16():
    net, x = build(precision="bf16"), torch.rand(8, 3, 8, 8, requires_grad=True)
    seen = []
    net.backbone.fc.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    logits = net(x)
    assert seen == [torch.bfloat16]
    reference = build()(x)
    assert not torch.equal(logits, reference)
    torch.testing.assert_close(logits, reference, rtol=0.05, atol=0.05)
    logits.sum().backward()
    assert x.grad.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in net.parameters())


def test_fp64_takes_the_float32_weights():
    low, high = build(), build(precision="fp64")
    for name, value in low.state_dict().items():
        assert torch.equal(high.state_dict()[name].float(), value)


@pytest.mark.parametrize("name", TINY)
def test_a_batch_equals_image_by_image(name):
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    net = initialise_statistics(build(name, (3, 16, 16), precision="fp64"), x)
    one_by_one = torch.cat([net(image[None]) for image in x])
    torch.testing.assert_close(net(x), one_by_one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TINY)
def test_channels_last_changes_nothing_but_the_layout(name):
    x = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    net = initialise_statistics(build(name, (3, 32, 32), precision="fp64"), x)
    reference = net(x)
    net = net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), reference)


@pytest.mark.parametrize("name", TINY)
def test_the_seed_decides_the_weights(name):
    first, second = build(name).state_dict(), build(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    copied = copy.deepcopy(build(name)).state_dict()
    assert all(torch.equal(first[key], copied[key]) for key in first)


def test_the_head_does_not_shift_the_backbones_weights():
    net = build("small_cnn")
    torch.manual_seed(3)
    features, _ = build_features("small_cnn", image_shape=(3, 8, 8))
    for key, value in features.state_dict().items():
        assert torch.equal(value, net.state_dict()[key])


def test_small_cnn_learns_the_digits():
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    x, y = torch.tensor(digits.images / 16).float()[:, None], torch.tensor(digits.target)
    net = build_classifier("small_cnn", num_classes=10, image_shape=(1, 8, 8))
    torch.manual_seed(0)
    order = torch.randperm(len(x))
    x, y = x[order], y[order]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(8):
        for batch in range(0, 1400, 50):
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch : batch + 50]), y[batch : batch + 50]).backward()
            optimizer.step()
    with torch.no_grad():
        assert (net(x[1400:]).argmax(1) == y[1400:]).float().mean() > 0.96


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes: 1 leaves nothing to tell apart; give at least 2"),
        (
            {"image_shape": (3, 0, 8)},
            "image_shape: (3, 0, 8) is not (channels, height, width), each at least 1",
        ),
        ({"image_shape": (8, 8)}, "image_shape: (8, 8) is not (channels, height, width), each at least 1"),
        ({"precision": "fp16"}, "precision: 'fp16' is unknown; choose one of: bf16, fp32, fp64"),
        ({"mean": (0.5, 0.5)}, "mean: 2 values for 3 image channels; give 1 or 3"),
        ({"std": 0.0}, "std: 0 divides the pixels; give values above 0"),
    ],
)
def test_one_line_says_what_is_wrong(options, message):
    with pytest.raises(UsageError) as caught:
        build_classifier("small_cnn", **{"num_classes": 4, "image_shape": (3, 8, 8), **options})
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["resnet19", "wrn-28", "wrn-28-0", "resnet18-0", "small_cnn-8", ":f", "m:"])
def test_an_unknown_name_lists_all_names_and_patterns(name):
    with pytest.raises(UsageError) as caught:
        find_builder(name, field="strategy_model")
    message = str(caught.value)
    assert message.startswith(f"strategy_model: '{name}' is unknown; choose one of: ")
    assert set(message.split(": ", 2)[2].split(", ")) == {*MODELS, *PATTERNS}


@pytest.mark.parametrize("depth", [4, 11, 28 + 5])
def test_a_wide_resnet_of_impossible_depth(depth):
    with pytest.raises(UsageError) as caught:
        build_features(f"wrn-{depth}-2", image_shape=(3, 8, 8))
    assert str(caught.value) == (
        f"strategy_model: 'wrn-{depth}-2' has depth {depth}; choose 6n + 4: 10, 16, 22, 28, 34, 40 ... 70"
    )
