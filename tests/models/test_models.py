"""Sizes, names and numbers of the nets against what is published for them."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import resnet as torchvision_resnet

from lasat_ray.models import build_classifier, build_features, num_parameters

SMALL = ["small_cnn", "small_cnn_bn", "resnet18-4", "resnet34-4", "resnet50-4", "preact_resnet18-4"]
SMALL += ["wrn-10-1", "wrn-16-1", "wrn-10-2-silu", "preact_resnet18_raw-4", "preact_resnet18_bn-4"]
SMALL += ["dm_wrn-10-1", "dm_wrn-16-2-silu", "dm_preact_resnet18-4"]


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
        ("dm_wrn-28-10-silu", 36_479_194),
        ("preact_resnet18_bn", 11_172_170),
        ("dm_preact_resnet18", 12_548_426),
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


def fill(net):
    """Random weights and BatchNorm statistics, so that no layer is near the identity."""
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point() and name not in ("mean", "std"):
                tensor.copy_(tensor + 0.3 * torch.rand_like(tensor))
    return net.eval()


@pytest.mark.parametrize(("name", "num_blocks"), [("resnet18", 2222), ("resnet50", 3463)])
def test_resnet_computes_what_torchvision_does(name, num_blocks):
    """An independent implementation with the stem exchanged and our weights under its names."""
    net = fill(build_classifier(f"{name}-4", num_classes=3, image_shape=(3, 16, 16), precision="fp64"))
    block = torchvision_resnet.Bottleneck if name == "resnet50" else torchvision_resnet.BasicBlock
    with torch.device("meta"):  # its own weights are never used
        other = torchvision_resnet.ResNet(block, [int(n) for n in str(num_blocks)], num_classes=3)
    ours = {
        key.removeprefix("backbone.").replace("shortcut", "downsample").replace("linear", "fc"): value
        for key, value in net.state_dict().items()
        if key not in ("mean", "std")
    }
    assert ours.keys() == other.state_dict().keys()
    narrow(other, ours)
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(net(x), other.eval()(x), rtol=1e-9, atol=0)


def narrow(other, state):
    """Give torchvision's 64-wide net our shapes: every layer computes with the tensors it is handed."""
    other.conv1.stride, other.conv1.padding = (1, 1), (1, 1)
    other.maxpool = torch.nn.Identity()
    for key, value in state.items():
        path, _, leaf = key.rpartition(".")
        module = other.get_submodule(path)
        kept = torch.nn.Parameter(value) if leaf in module._parameters else value
        setattr(module, leaf, kept)


def by_hand(state, x, act, *, stem_norm):
    """Pre-activation net from its state dict: PreActResNet (stages layer1-4) or WideResNet (block1-3)."""

    def norm(v, key):
        stats = [state[f"{key}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(v, *stats)

    out = F.conv2d(x, state["conv1.weight"], padding=1)
    blocks = dict.fromkeys(key.removesuffix(".bn1.weight") for key in state if key.endswith(".bn1.weight"))
    for block in blocks:
        first_of_later_stage = block.endswith(".0") and not block.startswith(("layer1", "block1"))
        stride = 2 if first_of_later_stage else 1
        active = act(norm(out, f"{block}.bn1"))
        mid = F.conv2d(active, state[f"{block}.conv1.weight"], padding=1, stride=stride)
        mid = F.conv2d(act(norm(mid, f"{block}.bn2")), state[f"{block}.conv2.weight"], padding=1)
        keys = [key for key in (f"{block}.convShortcut.weight", f"{block}.shortcut.0.weight") if key in state]
        out = mid + (F.conv2d(active, state[keys[0]], stride=stride) if keys else out)
    out = act(norm(out, "bn1")) if stem_norm else out
    head = "fc" if "fc.weight" in state else "linear"
    return F.linear(out.mean((2, 3)), state[f"{head}.weight"], state[f"{head}.bias"])


@pytest.mark.parametrize(
    ("name", "act"),
    [("wrn-10-1", F.relu), ("wrn-16-2", F.relu), ("wrn-10-2-silu", F.silu), ("preact_resnet18-4", F.relu)],
)
def test_preactivation_nets_compute_their_formula(name, act):
    net = fill(build_classifier(name, num_classes=3, image_shape=(3, 16, 16), precision="fp64"))
    state = net.backbone.state_dict()
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    expected = by_hand(state, x, act, stem_norm="bn1.weight" in state)
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("name", "some_keys", "num_keys"),
    [
        (
            "wrn-34-10",
            "conv1.weight block1.layer.0.bn1.weight block1.layer.0.convShortcut.weight "
            "block3.layer.4.conv2.weight bn1.running_var fc.weight fc.bias",
            # stem, 15 blocks of two norms (5 entries each) and two convolutions, 3 shortcuts, norm, head
            1 + 15 * (2 * 5 + 2) + 3 + 5 + 2,
        ),
        (
            "resnet18",
            "conv1.weight bn1.weight layer1.0.conv1.weight layer2.0.shortcut.0.weight "
            "layer2.0.shortcut.1.running_mean layer4.1.bn2.bias linear.weight",
            6 + 8 * 12 + 3 * 6 + 2,
        ),
        (
            "preact_resnet18",
            "conv1.weight layer1.0.bn1.weight layer2.0.shortcut.0.weight linear.bias",
            1 + 8 * 12 + 3 + 2,
        ),
    ],
)
def test_weights_have_the_fields_names(name, some_keys, num_keys):
    with torch.device("meta"):
        keys = build_classifier(name, num_classes=10, image_shape=(3, 32, 32)).backbone.state_dict().keys()
    assert set(some_keys.split()) <= set(keys)
    assert len(keys) == num_keys


def test_wide_resnet_starts_from_hes_distribution():
    torch.manual_seed(0)
    net = build_classifier("wrn-10-4", num_classes=10, image_shape=(3, 32, 32)).backbone
    weight = net.block2.layer[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert (net.fc.bias == 0).all()
