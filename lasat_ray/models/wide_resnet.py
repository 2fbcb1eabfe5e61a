"""WideResNet (Zagoruyko & Komodakis 2016), the large net of adversarial training.

Parameter names are those of the TRADES and RobustBench checkpoints: ``conv1
block1.layer.0.bn1 ... convShortcut ... bn1 fc``; no dropout, as in adversarial training.
"""

from __future__ import annotations

from torch import Tensor, nn

from lasat_ray.errors import UsageError
from lasat_ray.models.backbone import Backbone, ImageShape
from lasat_ray.models.resnet import conv


class WideBlock(nn.Module):
    """Two pre-activated 3x3 convolutions beside a shortcut."""

    def __init__(self, in_channels: int, width: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = activation()
        self.conv1 = conv(in_channels, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = activation()
        self.conv2 = conv(width, width, 3)
        # Projected only where the width changes, which is where every stride of 2 is; at width
        # factor 1 the first stage keeps its 16 channels and needs none.
        self.projects = in_channels != width
        if self.projects:
            self.convShortcut = conv(in_channels, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = self.act1(self.bn1(x))
        # A projection sees the activated input, an identity the raw one.
        skip = self.convShortcut(active) if self.projects else x
        return self.conv2(self.act2(self.bn2(self.conv1(active)))) + skip


class WideStage(nn.Module):
    """Blocks of one width under the name ``layer``; the first one strides."""

    def __init__(
        self, in_channels: int, width: int, count: int, stride: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        blocks = [WideBlock(in_channels, width, stride, activation)]
        blocks += [WideBlock(width, width, 1, activation) for _ in range(count - 1)]
        self.layer = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(Backbone):
    """WRN-``depth``-``widen``: three stages of (depth - 4) / 6 blocks, 16, 32, 64 times ``widen`` wide.

    ``activation`` nn.SiLU gives the "swish" nets of Gowal et al. 2020 (section 4.4). Convolutions
    start from He's normal distribution over the fan-out (He et al. 2015), as the TRADES net does.
    """

    def __init__(
        self,
        *,
        num_classes: int | None,
        image_shape: ImageShape,
        depth: int,
        widen: int,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        count = (depth - 4) // 6
        self.conv1 = conv(image_shape[0], 16, 3)
        self.block1 = WideStage(16, 16 * widen, count, 1, activation)
        self.block2 = WideStage(16 * widen, 32 * widen, count, 2, activation)
        self.block3 = WideStage(32 * widen, 64 * widen, count, 2, activation)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.act = activation()
        self.num_features = 64 * widen
        self.add_head(num_classes)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.act(self.bn1(out)).mean((2, 3))


MAX_DEPTH = 1000
"""Of nets by name; a forged name must not keep the machine building layers for ever."""


def check_depth(depth: int, *, name: str, field: str) -> None:
    """A WideResNet has 6n + 4 layers with n >= 1; anything else is a UsageError."""
    if not 10 <= depth <= MAX_DEPTH or depth % 6 != 4:
        raise UsageError(f"{field}: '{name}' has depth {depth}; choose 6n + 4: 10, 16, 22, 28, 34, 40 ... 70")
