"""Whatever code of a user may raise, beside the exceptions that one expects of it."""

from __future__ import annotations

import torch
from torch import nn


class Own(BaseException):
    """No Exception, so that ``except Exception`` lets it through."""


class OwnInterrupt(KeyboardInterrupt):
    pass


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class LeavesWhenShown(Exception):
    def __str__(self):
        raise SystemExit(0)


ODD = {
    "own": lambda: Own("odd"),
    "interrupt": KeyboardInterrupt,
    "own-interrupt": lambda: OwnInterrupt("odd"),
    "exit-0": lambda: SystemExit(0),
    "exit-words": lambda: SystemExit("odd\nlines"),
    "exit-object": lambda: SystemExit({"a": object()}),
    "generator": GeneratorExit,
    "stop": lambda: StopIteration(3),
    "unspeakable": Unspeakable,
    "leaves-when-shown": LeavesWhenShown,
    "group": lambda: BaseExceptionGroup("several", [ValueError("odd"), Own("two")]),
    "terminal": lambda: ValueError("odd\x1b[2J\r\n" + "x" * 9000),
}
KINDS = {name: type(make()).__name__ for name, make in ODD.items()}


class Armed(nn.Module):
    """A net that raises ``ODD[Armed.fault]`` once ``Armed.left`` passes of all such nets are over."""

    fault: str | None = None
    left = 0

    def __init__(self, num_classes, image_shape):
        super().__init__()
        self.fc = nn.Linear(torch.Size(image_shape).numel(), num_classes)

    def forward(self, x):
        if Armed.fault and Armed.left <= 0:
            raise ODD[Armed.fault]()
        Armed.left -= 1
        return self.fc(x.flatten(1))


def net(*, num_classes, image_shape):
    return Armed(num_classes, image_shape)


def attack(net, batch, spec, seed, chunk):
    raise ODD[Armed.fault or "own"]()


class Callback:
    def on_epoch(self, record):
        raise ODD[Armed.fault or "own"]()
