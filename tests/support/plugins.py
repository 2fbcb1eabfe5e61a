"""Code of users that keeps its contract, and the many ways in which it does not; named as module:name."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

import torch
import torch.autograd.forward_ad as fwd
from torch import nn

from lasat_ray.attacks.pgd import Rule
from lasat_ray.methods import Method
from lasat_ray.types import Action, LearnerReport


class Net(nn.Module):
    """``fault`` spoils what it returns, once ``after`` passes are over."""

    fault, after = staticmethod(lambda logits: logits), 0

    def __init__(self, num_classes, image_shape):
        super().__init__()
        self.fc = nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes)
        self.passes = 0

    def forward(self, x):
        logits = self.fc(x.flatten(1))
        self.passes += 1
        return type(self).fault(logits) if self.passes > self.after else logits


def raising(*_):
    raise KeyError("no such key")


def leaving(*_):
    sys.exit(0)


BAD_LOGITS = {
    "rows": lambda logits: logits[:-1],
    "columns": lambda logits: logits[:, :-1],
    "dtype": lambda logits: logits.long(),
    "none": lambda logits: None,
    "tuple": lambda logits: (logits, logits),
    "raises": raising,
    "exits": leaving,
}


def net_with(fault, after=6):
    """A builder of nets that keep their contract for ``after`` passes, longer than the first trial."""

    def build(*, num_classes, image_shape):
        kind = type("Net", (Net,), {"fault": staticmethod(BAD_LOGITS[fault]), "after": after})
        return kind(num_classes, image_shape)

    return build


class NoForwardMode(torch.autograd.Function):
    """The identity, of which PyTorch has no forward mode."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad


IN_FORWARD_MODE = {
    "layer": None,
    "memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "hardware": torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel"),
    "host": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    "own": RuntimeError("no such table"),
}


class Tuned(nn.Module):
    """With BatchNorm; fails where forward mode is asked of it, and nowhere else."""

    def __init__(self, num_classes, image_shape, fault):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(image_shape[0], 8, 3), nn.BatchNorm2d(8)
        self.head, self.fault = nn.LazyLinear(num_classes), fault

    def forward(self, x):
        error = IN_FORWARD_MODE[self.fault]
        if error and fwd._current_level >= 0 and fwd.unpack_dual(self.conv.weight).tangent is not None:
            raise error
        logits = self.head(self.norm(self.conv(x)).relu().flatten(1))
        return logits if error else NoForwardMode.apply(logits)


def fails_in_forward_mode(fault):
    return lambda *, num_classes, image_shape: Tuned(num_classes, image_shape, fault)


class Norm(nn.Module):
    def __init__(self, num_classes, image_shape):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.body, self.fc = nn.LazyLinear(64), nn.Linear(64, num_classes)

    def forward(self, x):
        return self.fc(self.norm(self.body(x.flatten(1))))


def lazy_norm(*, num_classes, image_shape):
    return Norm(num_classes, image_shape)


class BatchStatistics(nn.Module):
    def __init__(self, num_classes, image_shape, kind):
        super().__init__()
        self.conv, self.head = nn.Conv2d(image_shape[0], 8, 3), nn.LazyLinear(num_classes)
        width = 8 if kind is nn.BatchNorm2d else num_classes
        self.kind, self.norm = kind, kind(width, track_running_stats=False)

    def forward(self, x):
        if self.kind is nn.BatchNorm2d:
            return self.head(self.norm(self.conv(x)).relu().flatten(1))
        return self.norm(self.head(self.conv(x).relu().flatten(1)))


def batch_statistics(*, num_classes, image_shape):
    return BatchStatistics(num_classes, image_shape, nn.BatchNorm2d)


def batch_statistics_of_vectors(*, num_classes, image_shape):
    return BatchStatistics(num_classes, image_shape, nn.BatchNorm1d)


class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach()


class Locked(Net):
    def __init__(self, num_classes, image_shape):
        super().__init__(num_classes, image_shape)
        self.lock = threading.Lock()


class Extra(Net):
    def get_extra_state(self):
        return object()


class Renamed(Net):
    def _load_from_state_dict(self, state_dict, prefix, *rest):
        rest[-1].append("keys were renamed in version 2")


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise ValueError("no formula")


class NoGradient(Net):
    def forward(self, x):
        return Backward.apply(super().forward(x))


def detached(*, num_classes, image_shape):
    return Detached(num_classes, image_shape)


def locked(*, num_classes, image_shape):
    return Locked(num_classes, image_shape)


def extra(*, num_classes, image_shape):
    return Extra(num_classes, image_shape)


def renamed(*, num_classes, image_shape):
    return Renamed(num_classes, image_shape)


def no_gradient(*, num_classes, image_shape):
    return NoGradient(num_classes, image_shape)


class Learner:
    """The first value of every field; holds a lock, as clients of services do."""

    def __init__(self, context):
        self.sizes, self.lock, self.updates = context.space.sizes, threading.Lock(), 0

    def act(self, x, index, key):
        chosen = torch.zeros(len(x), len(self.sizes), dtype=torch.int64)
        return Action(index=chosen, log_prob=torch.zeros(len(x)))

    def update(self, rollout):
        self.updates += 1
        return LearnerReport(scalars={"updates": torch.tensor(float(self.updates))})

    def state_dict(self):
        return {"updates": self.updates}

    def load_state_dict(self, state):
        self.updates = state["updates"]


def changed(action, **fields):
    return replace(action, **fields)


BAD_ACTIONS = {
    "rows": lambda a: changed(a, index=a.index[:-1]),
    "fields": lambda a: changed(a, index=a.index[:, :1]),
    "dtype": lambda a: changed(a, index=a.index.float()),
    "above": lambda a: changed(a, index=a.index + 99),
    "below": lambda a: changed(a, index=a.index - 1),
    "log-prob": lambda a: changed(a, log_prob=a.log_prob[:1]),
    "log-prob-dtype": lambda a: changed(a, log_prob=a.index[:, 0]),
    "nothing": lambda a: changed(a, index=None),
    "none": lambda a: None,
    "tuple": lambda a: (a.index, a.log_prob),
    "raises": raising,
    "exits": leaving,
}
BAD_REPORTS = {
    "none": lambda r: None,
    "dict": lambda r: {},
    "rows": lambda r: LearnerReport(per_image={"loss": torch.zeros(3)}),
    "vector": lambda r: LearnerReport(scalars={"loss": torch.zeros(3)}),
    "number": lambda r: LearnerReport(scalars={"loss": 1.0}),
    "raises": raising,
    "exits": leaving,
}
BAD_STATES = {
    "none": lambda s: None,
    "lock": lambda s: {"lock": threading.Lock()},
    "raises": raising,
    "exits": leaving,
}


def learner_with(part, fault):
    bad = {"act": BAD_ACTIONS, "update": BAD_REPORTS, "state_dict": BAD_STATES}[part][fault]

    def spoiled(self, *args):
        return bad(getattr(Learner, part)(self, *args))

    return type("Bad", (Learner,), {part: spoiled})


def loss(inputs):
    return nn.functional.cross_entropy(inputs.logits.adv, inputs.y, reduction="none")


GOOD = Method(loss=loss)
BAD_LOSSES = {
    "mean": lambda loss_B: loss_B.mean(),
    "rows": lambda loss_B: loss_B[:-1],
    "detached": lambda loss_B: loss_B.detach(),
    "dtype": lambda loss_B: loss_B.long(),
    "none": lambda loss_B: None,
    "raises": raising,
    "exits": leaving,
}


def method_with(fault):
    return Method(loss=lambda inputs: BAD_LOSSES[fault](loss(inputs)))


def _rule(**answers):
    return type("Bad", (Rule,), {name: staticmethod(answer) for name, answer in answers.items()})()


BAD_HOOKS = {
    "rule-none": {"rule": lambda context: None},
    "rule-raises": {"rule": raising},
    "moves-rows": {"rule": lambda context: _rule(moves=lambda state: torch.ones(1, dtype=torch.bool))},
    "noise-shape": {"rule": lambda context: _rule(noise=lambda state: torch.zeros(2, 3))},
    "stats-rows": {"rule": lambda context: _rule(stats=lambda: {"kappa": torch.zeros(1)})},
    "limit-none": {"limit": lambda context: None},
    "limit-exits": {"limit": leaving},
    "conclude-none": {"conclude": lambda stats, context: None},
    "conclude-rows": {"conclude": lambda stats, context: {"kappa": torch.zeros(1)}},
}


def method_hooked(fault):
    return Method(loss=loss, **BAD_HOOKS[fault])


def attack(net, batch, spec, seed, chunk):
    return batch.x


def in_place(net, batch, spec, seed, chunk):
    """Changes what it was given, far beyond the ball, and leaves the net in train mode."""
    net.train()
    return batch.x.add_(0.9).clamp_(0, 1)


BAD_IMAGES = {
    "rows": lambda x: x[:-1],
    "dtype": lambda x: (x * 255).to(torch.uint8),
    "range": lambda x: x * 255,
    "nan": lambda x: x * float("nan"),
    "none": lambda x: None,
    "raises": raising,
    "exits": leaving,
}


def attack_with(fault):
    return lambda net, batch, spec, seed, chunk: BAD_IMAGES[fault](batch.x)


def __getattr__(name):
    """``net__rows``, ``act__none``, ...: made as they are asked for."""
    kind, _, fault = name.partition("__")
    makers = {"net": net_with, "loss": method_with, "hook": method_hooked, "attack": attack_with}
    makers["tuned"] = fails_in_forward_mode
    if kind in makers and fault:
        return makers[kind](fault.replace("_", "-"))
    if kind in ("act", "update", "state") and fault:
        part = "state_dict" if kind == "state" else kind
        return learner_with(part, fault.replace("_", "-"))
    raise AttributeError(name)
