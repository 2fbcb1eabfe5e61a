"""Nets that a user might name as module:function, good ones and bad ones."""

from torch import nn


class DroppyNet(nn.Module):
    """Moves BatchNorm statistics and draws dropout masks whenever it runs in training mode."""

    def __init__(self, num_outputs, image_shape):
        super().__init__()
        channels, height, width = image_shape
        self.norm = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(channels * height * width, num_outputs)

    def forward(self, x):
        return self.fc(self.drop(self.norm(x).flatten(1)))


class TupleWhileTraining(DroppyNet):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


def good(*, num_classes, image_shape):
    return DroppyNet(num_classes, image_shape)


def one_too_many(*, num_classes, image_shape):
    return DroppyNet(num_classes + 1, image_shape)


def auxiliary_head(*, num_classes, image_shape):
    return TupleWhileTraining(num_classes, image_shape)


def other_size(*, num_classes, image_shape):
    return DroppyNet(num_classes, (3, 5, 5))


def no_net(*, num_classes, image_shape):
    return "net"


def broken(*, num_classes, image_shape):
    raise KeyError("first line\nsecond line")


NUMBER = 3
