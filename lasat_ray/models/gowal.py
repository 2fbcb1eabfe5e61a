"""The nets of Gowal et al. 2020 (arXiv 2010.03593, section 4.4), as DeepMind's PyTorch code publishes them:
RobustBench's ``DMWideResNet`` and ``DMPreActResNet``.

They differ from the nets of the same depth in ``wide_resnet`` and ``resnet`` by what a convolution of
stride 2 sees: JAX pads "SAME" below and on the right alone. Running statistics keep 0.99 of their past, as
in the training code of Rade & Moosavi-Dezfooli 2021 and Wang et al. 2023.
Parameter names are the published ones: ``init_conv layer.0.block.0.batchnorm_0 conv_0 ... logits``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lasat_ray.models.backbone import Backbone, ImageShape
from lasat_ray.models.resnet import conv

MOMENTUM = 0.01


class SameConv(nn.Conv2d):
    """A 3x3 convolution without bias over x [B,C,H,W]; at stride 2 one row and column are added below and
    right."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding=1 if stride == 1 else 0, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.stride == (1, 1) else F.pad(x, (0, 1, 0, 1)))


def norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm whose running statistics move slowly."""
    return nn.BatchNorm2d(channels, momentum=MOMENTUM)


class GowalWideBlock(nn.Module):
    """Two pre-activated 3x3 convolutions; a 1x1 projection of the activated input where the width changes."""

    def __init__(self, in_channels: int, width: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.batchnorm_0 = norm(in_channels)
        self.relu_0 = activation()
        self.conv_0 = SameConv(in_channels, width, stride)
        self.batchnorm_1 = norm(width)
        self.relu_1 = activation()
        self.conv_1 = conv(width, width, 3)
        self.projects = in_channels != width
        if self.projects:
            self.shortcut = conv(in_channels, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu_0(self.batchnorm_0(x))
        skip = self.shortcut(active) if self.projects else x
        return self.conv_1(self.relu_1(self.batchnorm_1(self.conv_0(active)))) + skip


class GowalWideStage(nn.Module):
    """Blocks of one width under the name ``block``; the first one strides."""

    def __init__(
        self, in_channels: int, width: int, count: int, stride: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        blocks = [GowalWideBlock(in_channels, width, stride, activation)]
        blocks += [GowalWideBlock(width, width, 1, activation) for _ in range(count - 1)]
        self.block = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class GowalWideResNet(Backbone):
    """WRN-``depth``-``widen``, with nn.SiLU in all published files; starts as PyTorch's defaults."""

    head_name = "logits"

    def __init__(
        self,
        *,
        num_classes: int | None,
        image_shape: ImageShape,
        depth: int,
        widen: int,
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        count = (depth - 4) // 6
        widths = [16, 16 * widen, 32 * widen, 64 * widen]
        self.init_conv = conv(image_shape[0], widths[0], 3)
        self.layer = nn.Sequential(
            *(
                GowalWideStage(widths[i], widths[i + 1], count, 1 if i == 0 else 2, activation)
                for i in range(3)
            )
        )
        self.batchnorm = norm(widths[3])
        self.relu = activation()
        self.num_features = widths[3]
        self.add_head(num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.relu(self.batchnorm(self.layer(self.init_conv(x)))).mean((2, 3))


class GowalPreActBlock(nn.Module):
    """Two pre-activated 3x3 convolutions; a 3x3 projection of the raw input where the shape changes."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.batchnorm_0 = norm(in_channels)
        self.relu_0 = nn.SiLU()
        self.conv_2d_1 = SameConv(in_channels, width, stride)
        self.batchnorm_1 = norm(width)
        self.relu_1 = nn.SiLU()
        self.conv_2d_2 = conv(width, width, 3)
        self.projects = stride != 1 or in_channels != width
        if self.projects:
            self.shortcut = SameConv(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv_2d_1(self.relu_0(self.batchnorm_0(x)))
        out = self.conv_2d_2(self.relu_1(self.batchnorm_1(out)))
        return out + (self.shortcut(x) if self.projects else x)


class GowalPreActResNet(Backbone):
    """Four stages of SiLU blocks, ``width`` (published: 64) to 8 times ``width`` wide; RobustBench's R18
    rows of Rebuffi, Rade and Gowal et al. 2021."""

    head_name = "logits"

    def __init__(
        self,
        *,
        num_classes: int | None,
        image_shape: ImageShape,
        num_blocks: tuple[int, int, int, int] = (2, 2, 2, 2),
        width: int = 64,
    ) -> None:
        super().__init__()
        self.conv_2d = conv(image_shape[0], width, 3)
        channels = width
        for stage, count in enumerate(num_blocks):
            blocks = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                blocks.append(GowalPreActBlock(channels, width << stage, stride))
                channels = width << stage
            self.add_module(f"layer_{stage}", nn.Sequential(*blocks))
        self.batchnorm = norm(channels)
        self.relu = nn.SiLU()
        self.num_features = channels
        self.add_head(num_classes)

    def features(self, x: Tensor) -> Tensor:
        out = self.conv_2d(x)
        for stage in range(4):
            out = self.get_submodule(f"layer_{stage}")(out)
        return self.relu(self.batchnorm(out)).mean((2, 3))
