"""What an update minimizes on one batch, and the plainest way to take it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lasat_ray.config import LossConfig
from lasat_ray.methods import Method, MethodInputs
from lasat_ray.models import batch_norm_buffers
from lasat_ray.process_group import ProcessGroup, gradients
from lasat_ray.types import AttackedBatch, Logits

Net = Callable[[Tensor], Tensor]
"""Images [B,C,H,W] -> logits [B,N]."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What one update minimizes on one batch: the method's loss of any net, image by image."""

    method: Method
    attacked: AttackedBatch
    epoch: int = 0
    epochs: int = 1
    companion: nn.Module | None = None
    memory: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def unsmoothed(self) -> Task:
        """The same without what the strategies [B] smooth: they shape training, not what images are paid."""
        strategy = dataclasses.replace(self.attacked.strategy, label_smoothing=None)
        return dataclasses.replace(self, attacked=dataclasses.replace(self.attacked, strategy=strategy))

    def loss(self, logits: Logits, settings: LossConfig) -> Tensor:
        """The method's loss of each image, [B]; of a mixed image, by the shares of its labels."""
        batch = self.attacked.batch
        inputs = MethodInputs(
            logits=logits,
            y=batch.y,
            strategy=self.attacked.strategy,
            config=settings,
            stats=self.attacked.stats,
            epoch=self.epoch,
            epochs=self.epochs,
            memory=self.memory,
            soft_y=batch.soft_y,
        )
        own, share = self.method.loss(inputs), batch.share
        if share is None or batch.y_other is None:
            return own
        other = self.method.loss(dataclasses.replace(inputs, y=batch.y_other))
        return share * own + (1 - share) * other

    def loss_of(self, net: Net, settings: LossConfig) -> Tensor:
        """Forward passes and loss in one; [B]."""
        return self.loss(forward(net, self.method, self.attacked, self.companion), settings)


def forward(net: Net, method: Method, attacked: AttackedBatch, companion: Net | None = None) -> Logits:
    """Make the forward passes that a method's loss reads; clean and adversarial images pass separately, so
    that BatchNorm sees each kind by itself, as the published code of TRADES does."""
    x, x_adv = attacked.batch.x, attacked.x_adv
    clean = net(x) if method.needs_clean else None
    adv = net(x_adv)
    helper = net(x + 2 * (x_adv - x)) if method.needs_helper else None
    told = None
    if companion is not None and method.companion_sees != "before":
        told = companion(x if method.companion_sees == "clean" else x_adv)
    return Logits(adv=adv, clean=clean, helper=helper, companion=told)


def plain_step(
    net: nn.Module,
    task: Task,
    settings: LossConfig,
    *,
    lr: float,
    weight_decay: float,
    group: ProcessGroup,
    weight_B: Tensor | None = None,
) -> nn.Module:
    """w <- w - lr (grad of the mean loss + weight_decay w), in train mode; returns the same net.

    ``weight_B`` [B] multiplies the images' losses; BatchNorm still sees every image.
    """
    net.train().zero_grad(set_to_none=True)
    loss_B = task.loss_of(net, settings)
    backward(net, loss_B if weight_B is None else weight_B * loss_B, task.attacked.batch.global_size, group)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.grad is None:
                continue  # frozen by its maker
            parameter.sub_(parameter.grad + weight_decay * parameter, alpha=lr)
    return net


def backward(net: nn.Module, loss_B: Tensor, global_size: int, group: ProcessGroup) -> None:
    """Gradients of the mean over the *global* batch, and BatchNorm statistics averaged over workers."""
    (loss_B.sum() / global_size).backward()
    buffers = batch_norm_buffers(net)
    if group.size > 1:
        for buffer in buffers:
            # Each rank saw its own shard; equal statistics keep the attack in eval mode equal everywhere.
            buffer.mul_(len(loss_B) / global_size)
    group.sum_in_place(gradients(net.parameters()) + buffers)
