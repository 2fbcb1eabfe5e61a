"""ResNet (He et al. 2016a) and its pre-activation form (He et al. 2016b) for small images.

The stem is one 3x3 convolution without pooling, as the field does for CIFAR; larger images
(64x64) go through the same layers and the global average pooling takes the larger map.
Parameter names are those of the common CIFAR checkpoints: ``conv1 bn1 layer1.0.conv1 ... linear``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lasat_ray.models.backbone import Backbone, ImageShape


def conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the map's size at stride 1; a normalization layer holds the bias."""
    return nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = projection(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        return F.relu(out.add_(self.shortcut(x)), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut; four times as wide at its ends."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        return F.relu(out.add_(self.shortcut(x)), inplace=True)


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after its own normalization and ReLU."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.projects = stride != 1 or in_channels != width
        if self.projects:
            self.shortcut = nn.Sequential(conv(in_channels, width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        # A projection sees the activated input, an identity the raw one.
        skip = self.shortcut(self.projected(x, active)) if self.projects else x
        return self.conv2(F.relu(self.bn2(self.conv1(active)))) + skip

    def projected(self, x: Tensor, active: Tensor) -> Tensor:
        """What a projection is put to: x [B,C,H,W] or its activation of the same shape."""
        return active


class RawPreActBlock(PreActBlock):
    """The same, its projections put to the raw input: RobustBench's ``PreActBlock``, of the nets of
    Wong et al. 2020 and Andriushchenko & Flammarion 2020."""

    def projected(self, x: Tensor, active: Tensor) -> Tensor:
        return x


Block = type[BasicBlock] | type[Bottleneck] | type[PreActBlock]


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """The shortcut: identity, or a normalized 1x1 convolution where the map changes its shape."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class ResNet(Backbone):
    """Four stages of residual blocks of ``width``, 2, 4, 8 times ``width``, then the mean over H, W.

    ``width`` 64 is the published net; 16 makes one that trains on a CPU. Pre-activation blocks
    leave out the stem's normalization and, as the common CIFAR version does, a final one, which
    ``final_norm`` adds under the name ``bn`` (Rice et al. 2020, Kireev et al. 2021).
    Weights start as PyTorch's defaults, like that version's.
    """

    head_name = "linear"

    def __init__(
        self,
        *,
        num_classes: int | None,
        image_shape: ImageShape,
        block: Block = BasicBlock,
        num_blocks: tuple[int, int, int, int] = (2, 2, 2, 2),
        width: int = 64,
        final_norm: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = conv(image_shape[0], width, 3)
        self.activates_stem = not issubclass(block, PreActBlock)
        if self.activates_stem:
            self.bn1 = nn.BatchNorm2d(width)
        self.num_features = width
        self.layer1 = self._stage(block, width, num_blocks[0], stride=1)
        self.layer2 = self._stage(block, 2 * width, num_blocks[1], stride=2)
        self.layer3 = self._stage(block, 4 * width, num_blocks[2], stride=2)
        self.layer4 = self._stage(block, 8 * width, num_blocks[3], stride=2)
        self.final_norm = final_norm
        if final_norm:
            self.bn = nn.BatchNorm2d(self.num_features)
        self.add_head(num_classes)

    def _stage(self, block: Block, width: int, count: int, *, stride: int) -> nn.Sequential:
        blocks: list[nn.Module] = []
        for i in range(count):
            blocks.append(block(self.num_features, width, stride if i == 0 else 1))
            self.num_features = width * block.expansion
        return nn.Sequential(*blocks)

    def features(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        if self.activates_stem:
            out = F.relu(self.bn1(out), inplace=True)
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        if self.final_norm:
            out = F.relu(self.bn(out), inplace=True)
        return out.mean((2, 3))
