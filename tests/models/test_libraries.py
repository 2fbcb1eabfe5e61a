"""torchvision's and timm's nets by name: sizes, channels, published weights and what is refused."""

import sys

import pytest
import torch
from torch import nn
from torchvision import models

from lasat_ray.errors import UsageError, UserError
from lasat_ray.models import architecture, build_classifier


@pytest.fixture
def on_disk(monkeypatch):
    """torchvision's weights as a machine that has them gives them: random ones here."""

    def fetch(url, progress=True, check_hash=False, weights_only=False, map_location=None):
        assert check_hash and weights_only and url.startswith("https://download.pytorch.org/")
        torch.manual_seed(5)
        name = "vit_b_16" if "vit_b_16" in url else "resnet18"
        small = {"image_size": 224} if name == "vit_b_16" else {}
        return models.get_model(name, weights=None, **small).state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    return fetch


@pytest.mark.parametrize("channels", [1, 3])
def test_published_weights_and_their_normalization_are_inside(on_disk, channels):
    shape = (channels, 32, 32)
    weights = models.ResNet18_Weights.IMAGENET1K_V1
    name = "torchvision:resnet18@IMAGENET1K_V1"
    net = build_classifier(name, num_classes=1000, image_shape=shape).eval()
    theirs = models.get_model("resnet18", weights=None).eval()
    theirs.load_state_dict(on_disk(weights.url, check_hash=True, weights_only=True))
    x, seen = torch.rand(2, *shape), weights.transforms()
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (seen.mean, seen.std))
    if channels == 1:
        mean, std = mean.mean(), std.mean()
    expected = theirs(((x - mean) / std).expand(-1, 3, -1, -1))
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    few = build_classifier(name, num_classes=3, image_shape=shape)
    inner = few.backbone.net if channels == 1 else few.backbone
    kept = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    assert all(torch.equal(inner.state_dict()[key], value) for key, value in kept.items())
    assert inner.fc.weight.shape == (3, 512)
    plain = build_classifier("torchvision:resnet18", num_classes=3, image_shape=shape)
    assert float(plain.mean.abs().max()) == 0.0


def test_a_transformer_is_built_for_the_images_and_its_places_are_stretched(on_disk):
    net = build_classifier("torchvision:vit_b_16@IMAGENET1K_V1", num_classes=3, image_shape=(3, 32, 32))
    theirs = on_disk(models.ViT_B_16_Weights.IMAGENET1K_V1.url, check_hash=True, weights_only=True)
    own = net.backbone.state_dict()
    assert own["encoder.pos_embedding"].shape == (1, 5, 768)
    places = theirs["encoder.pos_embedding"][:, 1:].reshape(1, 14, 14, 768).permute(0, 3, 1, 2)
    small = nn.functional.interpolate(places, size=(2, 2), mode="bicubic", align_corners=True)
    expected = small.permute(0, 2, 3, 1).reshape(1, 4, 768)
    torch.testing.assert_close(own["encoder.pos_embedding"][:, 1:], expected)
    assert torch.equal(own["conv_proj.weight"], theirs["conv_proj.weight"])


def test_a_machine_without_the_weights_says_so(monkeypatch, tmp_path):
    def nothing(*args, **kwargs):
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", nothing)
    with pytest.raises(UserError, match="cannot be fetched") as caught:
        build_classifier("torchvision:resnet18@DEFAULT", num_classes=3, image_shape=(3, 32, 32))
    told = str(caught.value)
    assert told.startswith("model: the weights of 'torchvision:resnet18@DEFAULT'") and "\n" not in told
    assert "checkpoints" in told and "--init-from" in told


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [
        (
            "torchvision:resnet18@NONE",
            (3, 32, 32),
            r"no weights 'NONE' of resnet18; choose one",
        ),
        ("torchvision:resnet19", (3, 32, 32), "no classifier 'resnet19'; try one of: resnet1"),
        ("torchvision:vit_b_16", (3, 30, 30), r"cannot be built for images \(3, 30, 30\).*another size"),
    ],
)
def test_what_cannot_be_is_one_line(name, shape, told):
    with pytest.raises(UserError, match=told) as caught:
        build_classifier(name, num_classes=3, image_shape=shape)
    assert "\n" not in str(caught.value)


def test_whoever_loads_other_weights_needs_none_of_them():
    assert architecture("torchvision:resnet18@DEFAULT") == "torchvision:resnet18"
    assert architecture("timm:vit_tiny_patch16_224.in21k@pretrained") == "timm:vit_tiny_patch16_224.in21k"
    assert architecture("my@module:net") == "my@module:net" and architecture("resnet18") == "resnet18"


def test_timm_is_asked_for_where_it_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"needs timm; pip install '\.\[timm\]' in a clone"):
        build_classifier("timm:resnet18", num_classes=3, image_shape=(3, 32, 32))


class TestTimm:
    """With the package, where it is installed."""

    @pytest.fixture(autouse=True)
    def _timm(self):
        self.timm = pytest.importorskip("timm")

    @pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_any_size_and_number_of_channels(self, name, channels):
        net = build_classifier(f"timm:{name}", num_classes=3, image_shape=(channels, 32, 32))
        assert net(torch.rand(2, channels, 32, 32)).shape == (2, 3)

    def test_weights_come_with_their_normalization(self, monkeypatch):
        asked, create = [], self.timm.create_model

        def stand_in(name, pretrained=False, **options):
            asked.append((name, pretrained))
            torch.manual_seed(4)
            return create(name, pretrained=False, **options)

        monkeypatch.setattr(self.timm, "create_model", stand_in)
        net = build_classifier("timm:resnet18@pretrained", num_classes=3, image_shape=(3, 32, 32))
        assert asked[-1] == ("resnet18", True)
        assert net.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
        build_classifier("timm:resnet18@a1_in1k", num_classes=3, image_shape=(3, 32, 32))
        assert asked[-1] == ("resnet18.a1_in1k", True)

    def test_what_cannot_be_is_one_line(self, monkeypatch):
        for name, told in {
            "timm:resnet19": "no net 'resnet19'; try one of",
            "timm:resnet18@none": "no weights 'none' of resnet18; choose pretrained or one of",
        }.items():
            with pytest.raises(UsageError, match=told):
                build_classifier(name, num_classes=3, image_shape=(3, 32, 32))
        create = self.timm.create_model

        def offline(name, pretrained=False, **options):
            if pretrained:
                raise ConnectionError("no network")
            return create(name, **options)

        monkeypatch.setattr(self.timm, "create_model", offline)
        with pytest.raises(UserError, match="cannot be fetched"):
            build_classifier("timm:resnet18@pretrained", num_classes=3, image_shape=(3, 32, 32))
