"""Nets for a first run on a laptop, and for studies of hundreds of runs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lasat_ray.models.backbone import Backbone, ImageShape

POOLED_SIDE = 4
"""Side of the map that is flattened; a larger one is averaged down to about this."""


class SmallCNN(Backbone):
    """3x3 convolutions of 32, 64, 64 channels, a hidden layer of 128 features, and the head.

    The second convolution has stride 2, from a side of 32 pixels on the third has too. Without
    ``norm`` no layer looks at more than one image, so any split of a batch over workers computes
    the same function; with it each convolution is followed by BatchNorm. Weights before a ReLU
    start from He's normal distribution: without normalization, PyTorch's defaults lose a good
    part of the signal in every layer and the first epochs with it.
    """

    def __init__(
        self,
        *,
        num_classes: int | None,
        image_shape: ImageShape,
        norm: bool = False,
        widths: tuple[int, int, int] = (32, 64, 64),
        hidden: int = 128,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        strides = (1, 2, 2 if min(height, width) >= 32 else 1)
        layers: list[nn.Module] = []
        for out_channels, stride in zip(widths, strides, strict=True):
            layers.append(nn.Conv2d(channels, out_channels, 3, stride, 1, bias=not norm))
            layers += [nn.BatchNorm2d(out_channels)] if norm else []
            layers.append(nn.ReLU())
            channels, height, width = out_channels, -(-height // stride), -(-width // stride)
        self.convs = nn.Sequential(*layers)
        # Fixed windows, not adaptive pooling: the gradient of the latter is not deterministic on CUDA.
        self.pool = (max(1, height // POOLED_SIDE), max(1, width // POOLED_SIDE))
        self.hidden = nn.Linear(channels * (height // self.pool[0]) * (width // self.pool[1]), hidden)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.num_features = hidden
        self.add_head(num_classes)

    def features(self, x: Tensor) -> Tensor:
        out = self.convs(x)
        if self.pool != (1, 1):
            out = F.avg_pool2d(out, self.pool)
        return F.relu(self.hidden(out.flatten(1)))


class MLP(Backbone):
    """Two hidden layers of 128 units: seconds per run, where many methods and seeds are compared."""

    def __init__(self, *, num_classes: int | None, image_shape: ImageShape, hidden: int = 128) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.first = nn.Linear(channels * height * width, hidden)
        self.second = nn.Linear(hidden, hidden)
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.num_features = hidden
        self.add_head(num_classes)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x.flatten(1)))))
